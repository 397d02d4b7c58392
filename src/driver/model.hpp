// A driver of books alone: no memory lies behind its addresses, and a clock charges each call what it was measured to
// cost. It replays a job of 100 GiB on a laptop, and says what the driver calls would have taken on an H200.
// The addresses are none of this process: touching one faults. The same calls give the same addresses and handles.
// Any thread may call; one lock, as in the real driver, where threads do not make mapping faster.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "driver/model_costs.hpp"
#include "driver/simulated.hpp"

namespace gmlake::driver {

struct ModelOptions {
  int devices = 1;                                                // at most 64, all alike
  std::uint64_t capacity_bytes = std::uint64_t{143'771} << 20;    // of a device, rounded down to granules: an H200's
  std::uint64_t granularity = std::uint64_t{2} << 20;             // a power of two, 4 KiB at least
  std::uint64_t max_mappings = 500'000;                           // mappings with access: past it set_access fails
  std::uint64_t max_address_bytes = std::uint64_t{128} << 40;     // of addresses in all, 128 TiB at most
  std::uint64_t max_reservation_bytes = std::uint64_t{64} << 40;  // of one reservation
  int host_numa_nodes = 1;
  std::uint64_t host_bytes = std::uint64_t{1} << 40;  // of a NUMA node
  std::vector<DeviceFlags> flags = {};                // by device; those past the end can do everything
  std::string device_name = "model of an NVIDIA H200";
  ModelCosts costs = {};
};

class ModelDriver final : public SimulatedDriver {
 public:
  explicit ModelDriver(const ModelOptions& options = {});

  std::string_view name() const override { return "model"; }

  // The contract of Driver. As in the real driver, it is set_access that finds no room for more mappings, and it says
  // out_of_memory. Only calls that succeed are charged.
  Result<Address> reserve(std::uint64_t bytes, std::uint64_t alignment) override;
  Status address_free(Address address, std::uint64_t bytes) override;
  Result<Handle> create(std::uint64_t bytes, const MemoryProperties& properties) override;
  Status release(Handle handle) override;
  Status map(Address address, std::uint64_t bytes, Handle handle) override;
  Status unmap(Address address, std::uint64_t bytes) override;
  Status set_access(Address address, std::uint64_t bytes, std::span<const int> devices) override;
  Result<Event> event_create(int device) override;
  Status event_record(Event event, Stream stream) override;
  Result<bool> event_query(Event event) override;
  Status event_synchronize(Event event) override;
  Status stream_wait(Stream stream, Event event) override;
  Result<bool> stream_query(Stream stream) override;
  Status event_destroy(Event event) override;
  Status clear(Stream stream, Address address, std::uint64_t bytes) override;

  // Starts at 0 and moves only by what calls cost.
  std::uint64_t clock_ns() override { return clock_ns_.load(std::memory_order_relaxed); }

 private:
  void charge(double ns) { clock_ns_.fetch_add(static_cast<std::uint64_t>(ns), std::memory_order_relaxed); }
  template <class Outcome>
  Outcome charged(Outcome outcome, double ns);
  Result<Address> free_range(std::uint64_t bytes, std::uint64_t alignment) const GMLAKE_REQUIRES(mutex_);

  const ModelCosts costs_;
  const std::uint64_t granularity_;
  const Address end_;  // of all addresses
  const std::uint64_t max_reservation_bytes_;
  Address next_ GMLAKE_GUARDED_BY(mutex_);  // where the search for a free range starts
  std::atomic<std::uint64_t> clock_ns_ = 0;
};

}  // namespace gmlake::driver
