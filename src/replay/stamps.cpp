// Writing and reading the marks. Callable from the replaying thread.
#include "replay/stamps.hpp"

#include <algorithm>
#include <cstring>

namespace gmlake::replay {

namespace {

constexpr std::uint64_t kStampBytes = 8;

// The finalizer of splitmix64 is a bijection, so that two stamps at one offset never agree, and two at different
// offsets with a chance of 2^-64.
std::uint64_t stamp(std::uint32_t id, std::uint64_t offset) {
  std::uint64_t x = offset * 0x9E3779B97F4A7C15u + id + 1;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

unsigned char* pointer(driver::Address address) {
  // The seam's addresses are numbers; the host driver's are those of its mappings.
  return reinterpret_cast<unsigned char*>(static_cast<std::uintptr_t>(address));  // NOLINT(performance-no-int-to-ptr)
}

}  // namespace

// Calls visit(where, the 8 bytes that belong there, how many of them) for each stamp. They never overlap one another.
template <class Visit>
void Stamps::for_each(std::uint32_t id, driver::Address address, std::uint64_t bytes, Visit visit) const {
  const auto at = [&](std::uint64_t offset, std::uint64_t count) {
    unsigned char value[kStampBytes];
    const std::uint64_t word = stamp(id, offset);
    std::memcpy(value, &word, sizeof value);
    visit(pointer(address + offset), value, count);
  };
  at(0, std::min(bytes, kStampBytes));
  if (bytes < 2 * kStampBytes) return;
  const std::uint64_t last = bytes - kStampBytes;
  for (std::uint64_t offset = stride_ - address % stride_; offset + kStampBytes <= last; offset += stride_) {
    if (offset >= kStampBytes) at(offset, kStampBytes);
  }
  at(last, kStampBytes);
}

void Stamps::write(std::uint32_t id, driver::Address address, std::uint64_t bytes) const {
  for_each(id, address, bytes, [](unsigned char* where, const unsigned char* value, std::uint64_t count) {
    std::memcpy(where, value, count);
  });
}

void Stamps::verify(std::uint32_t id, driver::Address address, std::uint64_t bytes) {
  for_each(id, address, bytes, [&](const unsigned char* where, const unsigned char* value, std::uint64_t count) {
    verified_bytes_ += count;
    for (std::uint64_t i = 0; i < count; ++i) wrong_bytes_ += where[i] != value[i] ? 1u : 0u;
  });
}

}  // namespace gmlake::replay
