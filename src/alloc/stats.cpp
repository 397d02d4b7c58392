// The names of the counters: PyTorch's where PyTorch has the counter. Pure; callable from any thread.
#include "gmlake/stats.hpp"

#include <array>
#include <string>

namespace gmlake {
namespace {

struct PoolField {
  const char* name;
  Stat PoolStats::*field;
};
constexpr std::array kPoolFields = {
    PoolField{"allocation", &PoolStats::allocation},
    PoolField{"segment", &PoolStats::segment},
    PoolField{"active", &PoolStats::active},
    PoolField{"inactive_split", &PoolStats::inactive_split},
    PoolField{"allocated_bytes", &PoolStats::allocated_bytes},
    PoolField{"reserved_bytes", &PoolStats::reserved_bytes},
    PoolField{"active_bytes", &PoolStats::active_bytes},
    PoolField{"inactive_split_bytes", &PoolStats::inactive_split_bytes},
    PoolField{"requested_bytes", &PoolStats::requested_bytes},
};

struct Pool {
  const char* name;
  PoolStats DeviceStats::*pool;
};
constexpr std::array kPools = {Pool{"all", &DeviceStats::all}, Pool{"small_pool", &DeviceStats::small_pool},
                               Pool{"large_pool", &DeviceStats::large_pool}};

struct StatField {
  const char* name;
  std::uint64_t Stat::*field;
};
constexpr std::array kStatFields = {StatField{"current", &Stat::current}, StatField{"peak", &Stat::peak},
                                    StatField{"allocated", &Stat::allocated}, StatField{"freed", &Stat::freed}};

struct Oversize {
  const char* name;
  Stat DeviceStats::*stat;
};
constexpr std::array kOversize = {Oversize{"oversize_allocations", &DeviceStats::oversize_allocations},
                                  Oversize{"oversize_segments", &DeviceStats::oversize_segments}};

struct Count {
  const char* name;
  std::uint64_t DeviceStats::*field;
};
constexpr std::array kCounts = {
    Count{"num_alloc_retries", &DeviceStats::num_alloc_retries},
    Count{"num_ooms", &DeviceStats::num_ooms},
    Count{"num_sync_all_streams", &DeviceStats::num_sync_all_streams},
    Count{"num_device_alloc", &DeviceStats::num_device_alloc},
    Count{"num_device_free", &DeviceStats::num_device_free},
    Count{"gmlake.spare_bytes", &DeviceStats::spare_bytes},
    Count{"gmlake.lost_bytes", &DeviceStats::lost_bytes},
    Count{"gmlake.address_bytes", &DeviceStats::address_bytes},
    Count{"gmlake.quarantined_bytes", &DeviceStats::quarantined_bytes},
    Count{"gmlake.stale_bytes", &DeviceStats::stale_bytes},
    Count{"gmlake.mappings", &DeviceStats::mappings},
    Count{"gmlake.phy_blocks_created", &DeviceStats::phy_blocks_created},
    Count{"gmlake.phy_blocks_released", &DeviceStats::phy_blocks_released},
    Count{"gmlake.mappings_retired", &DeviceStats::mappings_retired},
    Count{"gmlake.background_retired", &DeviceStats::background_retired},
    Count{"gmlake.background_returned", &DeviceStats::background_returned},
    Count{"gmlake.events_pending", &DeviceStats::events_pending},
    Count{"gmlake.driver_calls", &DeviceStats::driver_calls},
    Count{"gmlake.driver_ns", &DeviceStats::driver_ns},
    Count{"gmlake.stitches", &DeviceStats::stitches},
    Count{"gmlake.moved_bytes", &DeviceStats::moved_bytes},
    Count{"gmlake.revived_mappings", &DeviceStats::revived_mappings},
    Count{"gmlake.revived_bytes", &DeviceStats::revived_bytes},
    Count{"gmlake.grown_bytes", &DeviceStats::grown_bytes},
    Count{"gmlake.borrowed_blocks", &DeviceStats::borrowed_blocks},
    Count{"gmlake.rung_own_stream", &DeviceStats::rung_own_stream},
    Count{"gmlake.rung_passed_streams", &DeviceStats::rung_passed_streams},
    Count{"gmlake.rung_stream_wait", &DeviceStats::rung_stream_wait},
    Count{"gmlake.rung_release_cached", &DeviceStats::rung_release_cached},
    Count{"gmlake.rung_wait", &DeviceStats::rung_wait},
    Count{"gmlake.rung_callbacks", &DeviceStats::rung_callbacks},
    Count{"gmlake.placed_blocks", &DeviceStats::placed_blocks},
    Count{"gmlake.placed_device_bytes", &DeviceStats::placed_device_bytes},
    Count{"gmlake.placed_peer_bytes", &DeviceStats::placed_peer_bytes},
    Count{"gmlake.placed_host_bytes", &DeviceStats::placed_host_bytes},
    Count{"gmlake.imported_bytes", &DeviceStats::imported_bytes},
    Count{"gmlake.placed_lost_bytes", &DeviceStats::placed_lost_bytes},
    Count{"gmlake.spills", &DeviceStats::spills},
    Count{"gmlake.collections", &DeviceStats::collections},
    Count{"gmlake.collected_bytes", &DeviceStats::collected_bytes},
    Count{"gmlake.invalid_frees", &DeviceStats::invalid_frees},
};

constexpr std::size_t kPoolNames = kPoolFields.size() * kPools.size() * kStatFields.size();
constexpr std::size_t kCompound = kPoolNames + kOversize.size() * kStatFields.size();

// The names that are put together from parts, in the order in which named_stats() gives them.
const std::array<std::string, kCompound>& compound_names() {
  static const auto* const names = [] {
    auto* made = new std::array<std::string, kCompound>;
    std::size_t i = 0;
    for (const PoolField& field : kPoolFields) {
      for (const Pool& pool : kPools) {
        for (const StatField& part : kStatFields) {
          (*made)[i++] = std::string(field.name) + "." + pool.name + "." + part.name;
        }
      }
    }
    for (const Oversize& stat : kOversize) {
      for (const StatField& part : kStatFields) (*made)[i++] = std::string(stat.name) + "." + part.name;
    }
    return made;
  }();  // never destroyed: names may be read at exit
  return *names;
}

}  // namespace

std::vector<NamedStat> named_stats(const DeviceStats& stats) {
  const std::array<std::string, kCompound>& names = compound_names();
  std::vector<NamedStat> all;
  all.reserve(kCompound + kCounts.size() + 1);
  const auto add = [&](std::string_view name, std::uint64_t value) {
    all.push_back({name, static_cast<std::int64_t>(value)});
  };
  for (const PoolField& field : kPoolFields) {
    for (const Pool& pool : kPools) {
      for (const StatField& part : kStatFields) add(names[all.size()], stats.*pool.pool.*field.field.*part.field);
    }
  }
  for (const Oversize& stat : kOversize) {
    for (const StatField& part : kStatFields) add(names[all.size()], stats.*stat.stat.*part.field);
  }
  all.push_back({"max_split_size", stats.max_split_size});
  for (const Count& count : kCounts) add(count.name, stats.*count.field);
  return all;
}

}  // namespace gmlake
