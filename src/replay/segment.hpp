// What cudaMalloc and cudaFree do, spelled in calls of the driver seam, and the count of bytes held that goes with
// them: the ground on which the models of allocators stand. A model makes real driver calls, so that its calls, its
// driver time and its failures are measured the way gmlake's are. Not thread-safe: one thread replays.
#pragma once

#include <cstdint>

#include "driver/driver.hpp"
#include "gmlake/result.hpp"

namespace gmlake::replay {

// One driver allocation: a range of its own, mapped to one handle throughout.
struct Segment {
  driver::Address address = 0;
  std::uint64_t bytes = 0;
  driver::Handle handle = driver::Handle::none;
};

// Physical bytes held, the most so far, and the limit on them (as torch.cuda.set_per_process_memory_fraction sets it).
class HeldBytes {
 public:
  // `capacity_bytes` 0: no limit but the device's own.
  explicit HeldBytes(std::uint64_t capacity_bytes = 0)
      : limit_(capacity_bytes == 0 ? ~std::uint64_t{0} : capacity_bytes) {}

  bool fits(std::uint64_t bytes) const { return bytes <= limit_ && held_ <= limit_ - bytes; }
  void add(std::uint64_t bytes) {
    held_ += bytes;
    if (held_ > peak_) peak_ = held_;
  }
  void remove(std::uint64_t bytes) { held_ -= bytes; }

  std::uint64_t held() const { return held_; }
  std::uint64_t peak() const { return peak_; }

 private:
  std::uint64_t limit_;
  std::uint64_t held_ = 0;
  std::uint64_t peak_ = 0;
};

// cudaMalloc: reserve, create, map, set_access. `bytes` is a multiple of the device's granularity.
// A step that fails is undone, and its error returned.
Result<Segment> allocate_segment(driver::Driver& driver, int device, std::uint64_t bytes);

// cudaFree, without its wait for the device: unmap, release, address_free. All three are made even where one fails; the
// first error is returned. The caller has seen to it that no stream uses the memory.
Status free_segment(driver::Driver& driver, const Segment& segment);

}  // namespace gmlake::replay
