#include "alloc/mapping_observers.hpp"

#include <memory>

#include "alloc/device_allocator.hpp"

namespace gmlake::alloc {

MappingObservers::~MappingObservers() {
  for (Entry* entry = newest_.load(); entry != nullptr;) delete std::exchange(entry, entry->older);
}

void MappingObservers::add(MappingObserver observer) {
  if (!observer) return;
  Entry* const entry = std::make_unique<Entry>(Entry{std::move(observer), newest_.load()}).release();
  while (!newest_.compare_exchange_weak(entry->older, entry, std::memory_order_release)) {
  }
}

void MappingObservers::tell(const MappingChange& change) const noexcept {
  for (const Entry* entry = newest_.load(std::memory_order_acquire); entry != nullptr; entry = entry->older) {
    try {
      entry->observer(change);
    } catch (...) {  // what it throws is its own affair
    }
  }
}

void MappingTeller::tell(MappingChange::Kind kind, const memory::VmmSegment& segment, std::uint32_t begin,
                         std::uint32_t end) const noexcept {
  observers_.tell({kind, device_, segment.address_of(begin), std::uint64_t{end - begin} << segment.granule_shift,
                   DeviceAllocator::stream_of(segment)});
}

}  // namespace gmlake::alloc
