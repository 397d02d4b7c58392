// gmlake's own format keeps every trace as it was, and refuses every file that is not as it was written.
#include "replay/trace_file.hpp"

#include <gtest/gtest.h>
#include <zlib.h>

#include <limits>

#include "observe/trace_file_layout.hpp"
#include "observe/varint.hpp"
#include "replay/random_trace.hpp"
#include "replay/read_trace.hpp"

namespace gmlake::replay {

using observe::append_varint;
using observe::fold_sign;
using observe::kHeaderTail;
using observe::read_varint;
using observe::unfold_sign;
namespace {

constexpr std::size_t kHeader = kTraceFileMagic.size() + kHeaderTail;

InputResult<Trace> read(const std::string& bytes) {
  ByteSource source(bytes, "f");
  return read_trace_file(source);
}

Trace two_devices() {
  Trace trace;
  trace.name = "small";
  trace.devices.push_back(
      trace_of_numbers({0, 8, 72, 1 << 20, 21 | 8 << 3, 5 | 16, 6 | 16, 3, 3, 7, 57 << 3, 128 << 3 | 7}));
  trace.devices.push_back(trace_of_numbers({}));
  trace.devices[1].device = 7;
  return trace;
}

// A stored file around any body, with the checksum and the lengths that fit it.
std::string file_of(const std::string& body) {
  std::string file(kTraceFileMagic);
  file += '\1';
  file += '\0';
  const auto append = [&](std::uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) file += static_cast<char>(value >> (8 * i));
  };
  append(crc32_z(0, reinterpret_cast<const Bytef*>(body.data()), body.size()), 4);
  append(body.size(), 8);
  append(body.size(), 8);
  return file + body;
}

RC_GTEST_PROP(TraceFile, KeepsEveryTraceAsItWas,
              (const std::vector<std::vector<std::uint32_t>>& devices, const std::string& name, bool compress)) {
  Trace trace;
  trace.name = name;
  for (const auto& numbers : devices) {
    trace.devices.push_back(trace_of_numbers(numbers));
    trace.devices.back().device = static_cast<int>(trace.devices.size() * 3);
    RC_ASSERT(validate(trace.devices.back()) == std::nullopt);
  }
  const auto again = read(write_trace_file(trace, compress ? Compression::zlib : Compression::none));
  RC_ASSERT(again.ok());
  RC_ASSERT(*again == trace);
}

TEST(TraceFile, KeepsTheLargestNumbers) {
  Trace trace;
  DeviceTrace& device = trace.devices.emplace_back();
  device.device = std::numeric_limits<int>::max();
  device.block_count = 1;
  device.events = {{Op::alloc, 0, 0, 0, kMaxBlockBytes}};
  device.recorded_segments = {{0, 0, ~std::uint64_t{0}, ~std::uint64_t{0}}, {0, 0, 0, 0}};
  device.recorded_peak_reserved_bytes = ~std::uint64_t{0};
  const auto again = read(write_trace_file(trace, Compression::none));
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(*again, trace);
}

RC_GTEST_PROP(Varint, KeepsEveryNumber, (std::uint64_t value, std::uint64_t other)) {
  std::string bytes;
  append_varint(bytes, value);
  append_varint(bytes, fold_sign(other - value));
  const char* at = bytes.data();
  std::uint64_t first = 0, second = 0;
  RC_ASSERT(read_varint(at, bytes.data() + bytes.size(), first));
  RC_ASSERT(read_varint(at, bytes.data() + bytes.size(), second));
  RC_ASSERT(first == value);
  RC_ASSERT(first + unfold_sign(second) == other);
  RC_ASSERT(at == bytes.data() + bytes.size());
}

TEST(TraceFile, TruncationAtEveryByteIsAnError) {
  for (const Compression compression : {Compression::none, Compression::zlib}) {
    const std::string whole = write_trace_file(two_devices(), compression);
    for (std::size_t length = 0; length < whole.size(); ++length) EXPECT_FALSE(read(whole.substr(0, length))) << length;
  }
}

TEST(TraceFile, EveryFlippedBitIsFound) {
  for (const Compression compression : {Compression::none, Compression::zlib}) {
    const std::string whole = write_trace_file(two_devices(), compression);
    for (std::size_t at = 0; at < whole.size(); ++at) {
      for (int bit = 0; bit < 8; ++bit) {
        std::string damaged = whole;
        damaged[at] = static_cast<char>(damaged[at] ^ 1 << bit);
        const auto trace = read(damaged);
        // zlib's own header has bits that say nothing of the content.
        if (trace) {
          EXPECT_EQ(*trace, two_devices()) << at;
        }
      }
    }
  }
}

// With the checksum made right, what is left is what a hostile writer would send.
TEST(TraceFile, DamageWithARightChecksumDoesNoHarm) {
  const std::string body = write_trace_file(two_devices(), Compression::none).substr(kHeader);
  for (std::size_t at = 0; at < body.size(); ++at) {
    EXPECT_FALSE(read(file_of(body.substr(0, at)))) << at;
    for (int value = 0; value < 256; ++value) {
      std::string damaged = body;
      damaged[at] = static_cast<char>(value);
      const auto trace = read_trace_from(file_of(damaged), "f");
      if (trace) {
        for (const DeviceTrace& device : trace->devices) EXPECT_EQ(validate(device), std::nullopt);
      }
    }
  }
}

TEST(TraceFile, ClaimsAreBoundedByTheBytesThatAreThere) {
  std::string billions;
  append_varint(billions, 1'000'000'000'000);
  const std::string one_stream = std::string("\0\1\0\0\0", 5);  // device 0, one stream, not held; peak 0
  const std::vector<std::pair<std::string, std::string>> cases{
      {billions, "claims more than it holds"},                                              // of name
      {std::string(1, '\0') + billions, "claims more than it holds"},                       // of devices
      {std::string("\0\1\0", 3) + billions + "aaaa", "claims more than it holds"},          // of streams
      {std::string("\0\1", 2) + one_stream + billions, "claims more than it holds"},        // of segments
      {std::string("\0\1", 2) + one_stream + '\0' + billions, "claims more than it holds"}  // of events
  };
  for (const auto& [body, reason] : cases) {
    const auto trace = read(file_of(body));
    ASSERT_FALSE(trace);
    EXPECT_EQ(trace.error().reason, reason);
  }
}

TEST(TraceFile, NamesOtherVersionsAndCompressions) {
  std::string file = write_trace_file(two_devices(), Compression::none);
  file[kTraceFileMagic.size()] = 2;
  EXPECT_EQ(read(file).error().text(), "f: at byte 0: is of version 2 of the format; this gmlake reads version 1");
  file[kTraceFileMagic.size()] = 1;
  file[kTraceFileMagic.size() + 1] = 2;
  EXPECT_EQ(read(file).error().reason, "is compressed in an unknown way");
}

TEST(TraceFile, AFileThatSaysItIsACompressedBombIsRefusedUnread) {
  std::string file = write_trace_file(two_devices(), Compression::zlib);
  file[kTraceFileMagic.size() + 6 + 5] = 1;  // 2^40 raw bytes
  EXPECT_EQ(read(file).error().reason, "claims to inflate to more than 100 times its size");
}

TEST(TraceFile, ATraceThatCompressesTooWellIsStored) {
  Trace trace;
  DeviceTrace& device = trace.devices.emplace_back();
  device.events.assign(17 << 20, {Op::trim, 0, 0, 0, 0});
  const std::string file = write_trace_file(trace, Compression::zlib);
  EXPECT_GT(file.size(), std::size_t{17} << 20);
  const auto again = read(file);
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(*again == trace, true);
}

}  // namespace
}  // namespace gmlake::replay
