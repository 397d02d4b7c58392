// The mapping observers of an allocator (gmlake/mappings.hpp), and what tells them of one device's mappings.
//
// Observers are added, never removed, so that telling them takes no lock: any thread may do either. Where there is
// none, a change of a mapping costs one load more.
#pragma once

#include <atomic>
#include <utility>

#include "gmlake/mappings.hpp"
#include "memory/mapping_watcher.hpp"

namespace gmlake::alloc {

class MappingObservers {
 public:
  MappingObservers() = default;
  ~MappingObservers();
  MappingObservers(const MappingObservers&) = delete;
  MappingObservers& operator=(const MappingObservers&) = delete;

  // An empty function is never called. Throws std::bad_alloc with nothing changed.
  void add(MappingObserver observer);
  bool any() const { return newest_.load(std::memory_order_acquire) != nullptr; }
  void tell(const MappingChange& change) const noexcept;

 private:
  struct Entry {
    MappingObserver observer;
    Entry* older = nullptr;
  };
  std::atomic<Entry*> newest_{nullptr};
};

class MappingTeller final : public memory::MappingWatcher {
 public:
  MappingTeller(const MappingObservers& observers, int device) : observers_(observers), device_(device) {}

  void mapped(const memory::VmmSegment& segment, std::uint32_t begin, std::uint32_t end) noexcept override {
    if (observers_.any()) tell(MappingChange::Kind::mapped, segment, begin, end);
  }
  void unmapping(const memory::VmmSegment& segment, std::uint32_t begin, std::uint32_t end) noexcept override {
    if (observers_.any()) tell(MappingChange::Kind::unmapping, segment, begin, end);
  }

 private:
  void tell(MappingChange::Kind kind, const memory::VmmSegment& segment, std::uint32_t begin,
            std::uint32_t end) const noexcept;

  const MappingObservers& observers_;
  const int device_;
};

}  // namespace gmlake::alloc
