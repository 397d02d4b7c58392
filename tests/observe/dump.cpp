// Writes the snapshots of a small job for tests in Python: dump PICKLE JSON
#include <cstdio>
#include <vector>

#include "driver/model.hpp"
#include "gmlake/gmlake.hpp"
#include "gmlake/observe.hpp"

int main(int count, char** arguments) {
  using namespace gmlake::literals;
  if (count != 3) return 2;
  gmlake::driver::ModelOptions options;
  options.capacity_bytes = 1_GiB;
  options.devices = 2;
  gmlake::driver::ModelDriver driver(options);
  const auto made = gmlake::Allocator::create(driver);
  if (!made) return 1;
  gmlake::Allocator& allocator = **made;
  if (!allocator.keep_history(1024).ok()) return 1;
  std::vector<void*> blocks;
  for (int i = 0; i < 10; ++i) blocks.push_back(allocator.allocate(20_MiB));
  for (int i = 0; i < 10; i += 2) allocator.deallocate(blocks[static_cast<std::size_t>(i)]);
  void* const stitched = allocator.allocate(90_MiB);  // moves what lies free, and leaves stale mappings
  void* const small = allocator.allocate(1000);
  if (allocator.try_allocate(1000_MiB).ok()) return 1;  // out of memory
  void* const used = allocator.allocate(3_MiB);
  allocator.record_stream(used, reinterpret_cast<void*>(std::uintptr_t{0x7f}));
  driver.streams().hold({0, 0x7f});
  if (!driver.launch({0, 0x7f}, {{reinterpret_cast<std::uintptr_t>(used), 512, true}}).ok()) return 1;
  allocator.deallocate(used);  // pending
  const gmlake::FileError pickle = gmlake::write_pickle_snapshot(allocator, arguments[1]);
  const gmlake::FileError json = gmlake::write_json_snapshot(allocator, arguments[2]);
  std::fputs((pickle.message + json.message).c_str(), stderr);
  allocator.deallocate(small);
  allocator.deallocate(stitched);
  driver.streams().advance_all();
  return pickle.ok() && json.ok() ? 0 : 1;
}
