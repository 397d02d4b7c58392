#include "alloc/private_pools.hpp"

#include <algorithm>
#include <utility>

#include "base/room.hpp"

namespace gmlake::alloc {
namespace {

Error refused(PoolId id) { return {ErrorCode::invalid_value, Step::pool, id.second != 0 ? id.second : id.first}; }

}  // namespace

PoolPair::PoolPair(memory::StreamIndex stream, stitch::Pool::BlockSlab& blocks, bool pinned)
    : small(std::make_unique<stitch::Pool>(stream, stitch::SizeClass::small, blocks, pinned)),
      large(std::make_unique<stitch::Pool>(stream, stitch::SizeClass::large, blocks, pinned)) {}

Status PoolRoutes::begin(PoolId id, StreamFilter filter) {
  const MutexLock lock(mutex_);
  for (const Route& route : routes_) {
    if (route.id == id) return refused(id);
  }
  routes_.push_back({id, std::move(filter)});
  any_.store(true, std::memory_order_relaxed);
  return {};
}

Status PoolRoutes::end(PoolId id) {
  StreamFilter filter;  // destroyed without the lock: what it holds is the caller's
  const MutexLock lock(mutex_);
  const auto found =
      std::find_if(routes_.begin(), routes_.end(), [id](const Route& candidate) { return candidate.id == id; });
  if (found == routes_.end()) return refused(id);
  filter = std::move(found->filter);
  routes_.erase(found);
  any_.store(!routes_.empty(), std::memory_order_relaxed);
  return {};
}

std::optional<PoolId> PoolRoutes::find(StreamHandle stream) const {
  const MutexLock lock(mutex_);
  for (std::size_t i = routes_.size(); i-- > 0;) {
    if (routes_[i].filter(stream)) return routes_[i].id;
  }
  return std::nullopt;
}

void PrivatePools::retain(PoolId id) {
  PrivatePool& pool = pools_[id];
  pool.id = id;
  ++pool.references;
}

std::uint64_t PrivatePools::references(PoolId id) const {
  const auto found = pools_.find(id);
  return found == pools_.end() ? 0 : found->second.references;
}

PrivatePools::PrivatePool* PrivatePools::find(PoolId id) {
  const auto found = pools_.find(id);
  return found == pools_.end() ? nullptr : &found->second;
}

void PrivatePools::retire(PoolId id, std::vector<memory::Fence> fences) {
  const auto found = pools_.find(id);
  make_room(retired_, retired_.size() + 1);
  retired_.push_back(std::move(found->second));
  retired_.back().fences = std::move(fences);
  pools_.erase(found);
}

PrivatePools::PrivatePool* PrivatePools::first_passed(const memory::Fences& fences) {
  const auto passed = std::find_if(retired_.begin(), retired_.end(), [&fences](const PrivatePool& pool) {
    return std::all_of(pool.fences.begin(), pool.fences.end(), [&](const auto& fence) { return fences.passed(fence); });
  });
  return passed == retired_.end() ? nullptr : &*passed;
}

void PrivatePools::drop(const PrivatePool* retired) { retired_.erase(retired_.begin() + (retired - retired_.data())); }

bool PrivatePools::has_pools_of(memory::StreamIndex stream) const {
  bool has = false;
  for_each([&](const PrivatePool&, const stitch::Pool& pool) { has = has || pool.stream() == stream; });
  return has;
}

}  // namespace gmlake::alloc
