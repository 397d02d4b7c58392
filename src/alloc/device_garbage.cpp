// garbage_collection_threshold of DeviceAllocator: above a share of the limit, what has been cached longest goes back
// to the driver before more is created. Called by the slow path alone, and by that only where the option is set.
//
// Each stream has a clock of its own, which does not compare with another's. So at each growth of the device the clocks
// of all streams are noted: a run that was free by then is at least as old as that growth.
#include <algorithm>

#include "alloc/device_allocator.hpp"

namespace gmlake::alloc {

namespace {

constexpr std::size_t kAgesKept = 64;  // of each stream; what was free before the first of them is as old as that

}  // namespace

std::uint64_t DeviceAllocator::past_threshold_bytes(const stitch::Plan& plan) const {
  const double share = options_.garbage_collection_threshold;
  const auto threshold = static_cast<std::uint64_t>(static_cast<double>(limit_bytes()) * share);
  const std::uint64_t after = phy_pool_.held_bytes() + (plan.created_granules << granule_shift_);
  return after > threshold ? after - threshold : 0;
}

bool DeviceAllocator::past_threshold(const stitch::Plan& plan) const {
  if (options_.garbage_collection_threshold == 0 || plan.created_granules == 0) return false;
  return past_threshold_bytes(plan) > 0;
}

void DeviceAllocator::note_ages() {
  ages_.resize(streams_.size());
  ++growths_;
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    std::deque<Age>& ages = ages_[i];
    if (!ages.empty() && ages.back().tick == streams_[i]->tick) continue;  // idle since: nothing younger to tell apart
    ages.push_back({streams_[i]->tick, growths_});
    if (ages.size() > kAgesKept) ages.pop_front();
  }
}

void DeviceAllocator::collect_garbage(const stitch::Plan& plan) {
  mark_all_streams();
  std::vector<const memory::PhyBlock*> planned;
  for (const memory::Mapping* mapping : plan.revive) planned.push_back(mapping->block);
  for (const stitch::Plan::Fill& fill : plan.fills) planned.push_back(fill.block);
  std::sort(planned.begin(), planned.end());
  stitch::StateSteps steps{.state = &state_};
  std::vector<Releasable> chosen = releasable(steps);
  {
    const MutexLock lock(state_);
    std::erase_if(chosen, [&planned](const Releasable& each) {
      return std::binary_search(planned.begin(), planned.end(), each.block);
    });
    // The growth before which a block was free: the first at which its stream's clock had passed it. Spare ones first.
    for (Releasable& each : chosen) {
      if (!each.donor) continue;
      const std::deque<Age>& ages = ages_[each.donor->freed.stream];
      const auto age = std::lower_bound(ages.begin(), ages.end(), each.donor->freed.tick,
                                        [](const Age& at, std::uint64_t tick) { return at.tick < tick; });
      each.growth = age == ages.end() ? UINT64_MAX : age->growth;
    }
    std::stable_sort(chosen.begin(), chosen.end(), [](const Releasable& a, const Releasable& b) {
      if (a.growth != b.growth) return a.growth < b.growth;
      if (!a.donor || !b.donor) return false;
      return a.donor->freed.tick < b.donor->freed.tick;
    });
    std::uint64_t left = past_threshold_bytes(plan);
    std::size_t taken = 0;
    for (; taken < chosen.size() && left > 0; ++taken) {
      left -= std::min(left, std::uint64_t{chosen[taken].block->granules} << granule_shift_);
    }
    chosen.resize(taken);
  }
  const std::uint64_t collected = give_back(chosen, steps);
  if (collected == 0) return;
  const MutexLock lock(state_);
  ++counts_.collections;
  counts_.collected_bytes += collected;
}

}  // namespace gmlake::alloc
