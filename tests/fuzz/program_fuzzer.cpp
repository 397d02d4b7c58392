// Any bytes as a program of operations on an allocator: allocations, frees, uses on other streams, trims, limits,
// private pools, forgotten streams, devices that fall behind, driver calls that fail. Each program is run on the model
// driver against the reference and the race detector, as the random programs are; here the bytes that reach new code
// are kept and changed, which finds sequences that no dice would throw. The build recounts the books after every call.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "support/program.hpp"

namespace gmlake::test {
namespace {

class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  bool empty() const { return size_ == 0; }
  std::uint32_t byte() {
    if (size_ == 0) return 0;
    --size_;
    return *data_++;
  }
  // From 1 to 2^29 in two bytes: a power of two, and how far it is on the way to the next.
  std::uint64_t size() {
    const std::uint64_t low = byte();
    return (std::uint64_t{256} + low) << (byte() % 29) >> 8;
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
};

Conditions read_conditions(Bytes& bytes) {
  Conditions conditions;
  const std::uint32_t flags = bytes.byte();
  conditions.granularity = std::uint64_t{(flags & 1) != 0 ? 4u : 64u} << 10;
  conditions.capacity_granules = std::uint64_t{64} << (flags >> 1 & 7);
  conditions.options.stream_wait = (flags & 16) == 0 ? StreamWait::before_growth : StreamWait::never;
  if ((flags & 32) != 0) conditions.options.slack = 0.05;
  if ((flags & 64) != 0) conditions.options.max_stale = 0.1;
  if ((flags & 128) != 0) conditions.options.garbage_collection_threshold = 0.6;
  conditions.streams = 1 + bytes.byte() % 6;
  return conditions;
}

Op read_op(Bytes& bytes, const Conditions& conditions) {
  Op op;
  const std::uint32_t first = bytes.byte();
  op.kind = static_cast<Op::Kind>(first % 16 % 14);  // allocations and frees twice as often
  op.stream = (first >> 4) % conditions.streams;
  switch (op.kind) {
    case Op::Kind::alloc:
      op.block = bytes.byte() % 64;
      op.amount = bytes.size();
      op.amount = std::max<std::uint64_t>(op.amount, 1);
      break;
    case Op::Kind::free:
      op.block = bytes.byte();
      if ((op.block & 128) == 0) op.stream = ~0u;  // the stream it was allocated on
      op.block %= 64;
      break;
    case Op::Kind::record:
    case Op::Kind::work:
      op.block = bytes.byte() % 64;
      break;
    case Op::Kind::advance:
      op.amount = 1 + bytes.byte() % 16;
      break;
    case Op::Kind::trim:
    case Op::Kind::limit:
      op.amount = bytes.size();
      if (op.amount < 256) op.amount = 0;  // all; none
      break;
    case Op::Kind::fail:
      op.amount = 1 + bytes.byte() % 64;
      op.stream = first >> 4 & 7;
      break;
    case Op::Kind::spare:
      op.amount = bytes.byte() % 4;
      break;
    case Op::Kind::begin_pool:
    case Op::Kind::end_pool:
    case Op::Kind::release_pool:
      op.block = 1 + bytes.byte() % 3;
      break;
    case Op::Kind::heal:
    case Op::Kind::forget:
      break;
  }
  return op;
}

}  // namespace
}  // namespace gmlake::test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace gmlake::test;
  constexpr std::size_t kMost = 500;
  Bytes bytes(data, size);
  const Conditions conditions = read_conditions(bytes);
  Program program;
  while (!bytes.empty() && program.size() < kMost) program.push_back(read_op(bytes, conditions));
  const Outcome outcome = run_program(conditions, program);
  if (outcome.failure.empty()) return 0;
  std::fprintf(stderr, "%s\n%llu granules of %llu bytes, %u streams\n%s", outcome.failure.c_str(),
               static_cast<unsigned long long>(conditions.capacity_granules),
               static_cast<unsigned long long>(conditions.granularity), conditions.streams, to_source(program).c_str());
  std::abort();
}
