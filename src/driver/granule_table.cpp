#include "driver/granule_table.hpp"

#include <algorithm>

namespace gmlake::driver {

GranuleTable::Leaf* GranuleTable::find(std::uint64_t number) const {
  if (number == last_number_) return last_leaf_;
  const auto found = leaves_.find(number);
  if (found == leaves_.end()) return nullptr;
  last_number_ = number;
  last_leaf_ = found->second.get();
  return last_leaf_;
}

bool GranuleTable::empty(std::uint64_t first, std::uint64_t count) const {
  for (const std::uint64_t end = first + count; first < end;) {
    const std::uint64_t next = std::min(end, (first | kLeafMask) + 1);
    if (const Leaf* leaf = find(first >> kLeafBits); leaf != nullptr) {
      const auto* ids = leaf->ids.data() + (first & kLeafMask);
      if (std::any_of(ids, ids + (next - first), [](std::uint32_t id) { return id != 0; })) return false;
    }
    first = next;
  }
  return true;
}

void GranuleTable::fill(std::uint64_t first, std::uint64_t count, std::uint32_t id) {
  used_ += count;
  for (const std::uint64_t end = first + count; first < end;) {
    const std::uint64_t next = std::min(end, (first | kLeafMask) + 1);
    Leaf* leaf = find(first >> kLeafBits);
    if (leaf == nullptr) leaf = (leaves_[first >> kLeafBits] = std::make_unique<Leaf>()).get();
    std::fill_n(leaf->ids.data() + (first & kLeafMask), next - first, id);
    leaf->used += next - first;
    first = next;
  }
}

void GranuleTable::clear(std::uint64_t first, std::uint64_t count) {
  used_ -= count;
  for (const std::uint64_t end = first + count; first < end;) {
    const std::uint64_t next = std::min(end, (first | kLeafMask) + 1);
    Leaf* leaf = find(first >> kLeafBits);
    std::fill_n(leaf->ids.data() + (first & kLeafMask), next - first, 0u);
    leaf->used -= next - first;
    if (leaf->used == 0) {
      leaves_.erase(first >> kLeafBits);
      last_number_ = ~std::uint64_t{0};
    }
    first = next;
  }
}

}  // namespace gmlake::driver
