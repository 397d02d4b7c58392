// Which mapping lies at a granule: a number for each granule of the address space, 0 where nothing is mapped.
// Leaves of 512 granules exist only where something is mapped, so memory follows what is mapped, not what is reserved.
// Not thread-safe: DriverBooks owns it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>

namespace gmlake::driver {

class GranuleTable {
 public:
  // The number at a granule.
  std::uint32_t at(std::uint64_t granule) const {
    const Leaf* leaf = find(granule >> kLeafBits);
    return leaf == nullptr ? 0 : leaf->ids[granule & kLeafMask];
  }

  // Whether `count` granules from `first` on are all 0.
  bool empty(std::uint64_t first, std::uint64_t count) const;

  // Gives `count` empty granules the number `id`, not 0; and empties granules that all have a number.
  void fill(std::uint64_t first, std::uint64_t count, std::uint32_t id);
  void clear(std::uint64_t first, std::uint64_t count);

  std::uint64_t used() const { return used_; }  // granules that have a number

 private:
  static constexpr int kLeafBits = 9;
  static constexpr std::uint64_t kLeafSize = std::uint64_t{1} << kLeafBits;
  static constexpr std::uint64_t kLeafMask = kLeafSize - 1;

  struct Leaf {
    std::array<std::uint32_t, kLeafSize> ids{};
    std::uint64_t used = 0;
  };

  Leaf* find(std::uint64_t number) const;

  std::unordered_map<std::uint64_t, std::unique_ptr<Leaf>> leaves_;
  mutable std::uint64_t last_number_ = ~std::uint64_t{0};  // the leaf looked up last: calls come in runs of neighbours
  mutable Leaf* last_leaf_ = nullptr;
  std::uint64_t used_ = 0;
};

}  // namespace gmlake::driver
