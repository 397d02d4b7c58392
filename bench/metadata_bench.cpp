// What bookkeeping costs, and that it stays where it is: random requests and frees with nine tenths of the memory live,
// and how much host memory there is then for each live block and each PhyBlock, how many addresses are reserved, and
// how many mappings the driver has. Each must keep its bound throughout, and none may grow from the second quarter of
// the operations to the last. Where requests are long, cached runs and holes between them have more records than the
// few blocks that are live: there the bound of a live block holds for each record.
//
//   metadata_bench [--smoke] [--operations N] [--json FILE]
//
// The public Allocator on the model driver: no device. The same run gives the same figures. Exits 1 if a bound does not
// hold. Bounds are of the last three quarters: in the first, memory fills up. --smoke: fewer operations.
#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "driver/model.hpp"
#include "gmlake/allocator.hpp"

namespace {

using gmlake::Allocator;

constexpr double kBytesPerLiveBlock = 160;
constexpr double kBytesPerPhyBlock = 256;
constexpr double kAddressSpace = 8;  // over the device's memory
constexpr double kGrowth = 1.05;     // from the second quarter to the last
constexpr double kLoad = 0.9;

struct Shape {
  const char* name;
  std::uint64_t capacity;
  std::uint64_t shortest, longest;  // requests: every power of two between them as likely as any other
  bool mostly_live;                 // of all records of VirBlocks
};

constexpr Shape kShapes[] = {
    {"small", std::uint64_t{4} << 30, 512, std::uint64_t{128} << 10, true},
    {"mixed", std::uint64_t{80} << 30, 512, std::uint64_t{512} << 20, false},
    {"large", std::uint64_t{80} << 30, std::uint64_t{2} << 20, std::uint64_t{256} << 20, false},
};

// The most of each quantity over a quarter of the operations.
struct Peaks {
  double per_live_block = 0;
  double per_phy_block = 0;
  double address_space = 0;
  double mappings = 0;        // the driver's
  double stale_share = 0;     // of the bound on stale mappings
  double metadata_bytes = 0;  // of both kinds
};
struct Quantity {
  const char* name;
  double Peaks::*peak;
  double bound;  // 0: it must not grow
};
constexpr Quantity kQuantities[] = {
    {"metadata bytes a block", &Peaks::per_live_block, kBytesPerLiveBlock},
    {"metadata bytes a PhyBlock", &Peaks::per_phy_block, kBytesPerPhyBlock},
    {"addresses / capacity", &Peaks::address_space, kAddressSpace},
    {"stale mappings / their bound", &Peaks::stale_share, 1},
    {"growth of addresses", &Peaks::address_space, 0},
    {"growth of mappings", &Peaks::mappings, 0},
    {"growth of metadata bytes", &Peaks::metadata_bytes, 0},
};

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "metadata_bench: %s\n", what.c_str());
  std::exit(2);
}

class Run {
 public:
  Run(const Shape& shape, std::uint64_t operations)
      : shape_(shape), operations_(operations), model_({.capacity_bytes = shape.capacity}) {
    auto made = Allocator::create(model_, {.background_worker = false});  // which would make each run another
    if (!made) fail(gmlake::describe(made.error()));
    allocator_ = std::move(*made);
  }

  std::array<Peaks, 4> quarters() {
    std::array<Peaks, 4> quarters;
    const std::uint64_t looks = 50;  // a quarter
    const std::uint64_t step = std::max<std::uint64_t>(operations_ / (4 * looks), 1);
    for (std::uint64_t done = 0; done < operations_; ++done) {
      operate();
      if (done % step == step - 1 && live_bytes_ > target() / 2) look(quarters[done * 4 / operations_]);
    }
    allocator_->check();
    return quarters;
  }

 private:
  struct Live {
    void* pointer;
    std::uint64_t bytes;
  };

  std::uint64_t target() const { return static_cast<std::uint64_t>(static_cast<double>(shape_.capacity) * kLoad); }

  std::uint64_t next_bytes() {
    const int octaves = std::countr_zero(shape_.longest) - std::countr_zero(shape_.shortest);
    const std::uint64_t power = shape_.shortest << random_() % static_cast<std::uint64_t>(octaves);
    return power + random_() % power;
  }

  // One request, or a free of a random block where the request would take too much.
  void operate() {
    if (wanted_ == 0) wanted_ = next_bytes();
    if (live_bytes_ + wanted_ > target()) {
      std::swap(live_[random_() % live_.size()], live_.back());
      allocator_->deallocate(live_.back().pointer);
      live_bytes_ -= live_.back().bytes;
      live_.pop_back();
      return;
    }
    const auto made = allocator_->try_allocate(wanted_, 0, nullptr);
    if (!made) fail(std::string(shape_.name) + ": " + gmlake::describe(made.error()));
    live_.push_back({*made, wanted_});
    live_bytes_ += wanted_;
    wanted_ = 0;
  }

  void look(Peaks& peaks) const {
    const gmlake::DeviceStats stats = allocator_->stats();
    const gmlake::Overhead overhead = allocator_->overhead();
    const auto see = [&peaks](double Peaks::*peak, double value) { peaks.*peak = std::max(peaks.*peak, value); };
    const auto phy_blocks = static_cast<double>(stats.phy_blocks_created - stats.phy_blocks_released);
    const auto block_bytes = static_cast<double>(overhead.block_metadata_bytes);
    const auto phy_bytes = static_cast<double>(overhead.phy_metadata_bytes);
    const auto held = static_cast<double>(stats.all.reserved_bytes.current);
    see(&Peaks::per_live_block,
        block_bytes / static_cast<double>(shape_.mostly_live ? live_.size() : overhead.block_records));
    see(&Peaks::per_phy_block, phy_bytes / phy_blocks);
    see(&Peaks::address_space, static_cast<double>(stats.address_bytes) / static_cast<double>(shape_.capacity));
    see(&Peaks::mappings, static_cast<double>(stats.mappings));
    see(&Peaks::stale_share, static_cast<double>(stats.stale_bytes) / (held * gmlake::Options{}.max_stale));
    see(&Peaks::metadata_bytes, block_bytes + phy_bytes);
  }

  const Shape& shape_;
  const std::uint64_t operations_;
  gmlake::driver::ModelDriver model_;
  std::unique_ptr<Allocator> allocator_;
  std::mt19937_64 random_{1};
  std::vector<Live> live_;
  std::uint64_t live_bytes_ = 0;
  std::uint64_t wanted_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  bool smoke = false;
  std::uint64_t operations = 4'000'000;
  const char* json = nullptr;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--smoke") == 0) {
      smoke = true;
      operations = 50'000;
    } else if (std::strcmp(argv[i], "--operations") == 0 && i + 1 < argc) {
      operations = std::strtoull(argv[++i], nullptr, 10);
    } else if (std::strcmp(argv[i], "--json") == 0 && i + 1 < argc) {
      json = argv[++i];
    } else {
      fail("usage: metadata_bench [--smoke] [--operations N] [--json FILE]");
    }
  }
  int missed = 0;
  std::string rows;
  std::printf("      %-6s %-30s %12s %12s %12s %12s %9s\n", "shape", "the most of", "1st quarter", "2nd", "3rd", "4th",
              "bound");
  for (Shape shape : kShapes) {
    if (smoke && shape.mostly_live) shape.capacity /= 8;  // or it would not be full in time
    const std::array<Peaks, 4> quarters = Run(shape, operations).quarters();
    for (const Quantity& quantity : kQuantities) {
      std::array<double, 4> most{};
      for (std::size_t i = 0; i < 4; ++i) most[i] = quarters[i].*quantity.peak;
      const double worst = *std::max_element(most.begin() + 1, most.end());  // full from then on
      const bool met = quantity.bound != 0 ? worst <= quantity.bound : most[3] <= kGrowth * most[1];
      missed += !met;
      std::printf("%s  %-6s %-30s %12.2f %12.2f %12.2f %12.2f %9.0f\n", met ? "ok  " : "MISS", shape.name,
                  quantity.name, most[0], most[1], most[2], most[3], quantity.bound);
      rows += (rows.empty() ? "" : ",\n") + std::string("  {\"shape\": \"") + shape.name + "\", \"quantity\": \"" +
              quantity.name + "\", \"quarters\": [" + std::to_string(most[0]) + ", " + std::to_string(most[1]) + ", " +
              std::to_string(most[2]) + ", " + std::to_string(most[3]) +
              "], \"bound\": " + std::to_string(quantity.bound) +
              ", \"growth\": " + std::to_string(most[1] > 0 ? most[3] / most[1] : 1.0) +
              ", \"growth_bound\": " + std::to_string(kGrowth) + "}";
    }
  }
  if (json != nullptr) {
    std::FILE* file = std::strcmp(json, "-") == 0 ? stdout : std::fopen(json, "w");
    if (file == nullptr) fail("cannot write the results");
    std::fprintf(file, "{\"operations\": %llu, \"rows\": [\n%s\n]}\n", static_cast<unsigned long long>(operations),
                 rows.c_str());
    if (file != stdout && std::fclose(file) != 0) fail("cannot write the results");
  }
  return missed == 0 ? 0 : 1;
}
