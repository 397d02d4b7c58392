// A job for the tests of this folder: allocations of all sizes on some streams, uses on others, frees.
#pragma once

#include <map>
#include <random>
#include <vector>

#include "support/machine.hpp"

namespace gmlake::test {

class Job {
 public:
  Job(Allocator& allocator, std::uint64_t seed, std::uint64_t streams)
      : allocator_(allocator), random_(seed), streams_(streams) {}

  void run(int steps) {
    for (int step = 0; step < steps; ++step) {
      const std::uint64_t dice = random_() % 100;
      if (held_.empty() || (dice < 52 && held_.size() < 300)) {
        const std::uint64_t bytes = dice % 2 == 0 ? 1 + random_() % (1 << 20) : 1 + random_() % (8 * kGranule);
        const std::uint64_t stream = random_() % streams_;
        const Result<void*> pointer = allocator_.try_allocate(bytes, 0, stream_handle(stream));
        ASSERT_TRUE(pointer.ok()) << describe(pointer.error());
        held_.push_back(*pointer);
      } else {
        const std::size_t i = random_() % held_.size();
        if (streams_ > 1 && dice % 4 == 0) {
          ASSERT_TRUE(allocator_.try_record_stream(held_[i], stream_handle(random_() % streams_)).ok());
        }
        ASSERT_TRUE(allocator_.try_deallocate(held_[i]).ok());
        held_[i] = held_.back();
        held_.pop_back();
      }
    }
  }
  void free_all() {
    for (void* pointer : held_) ASSERT_TRUE(allocator_.try_deallocate(pointer).ok());
    held_.clear();
  }
  std::size_t live() const { return held_.size(); }

 private:
  Allocator& allocator_;
  std::mt19937_64 random_;
  const std::uint64_t streams_;
  std::vector<void*> held_;
};

}  // namespace gmlake::test
