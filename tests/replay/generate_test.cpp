// The adversaries: valid, bounded, and the same everywhere for the same seed.
#include "replay/generate.hpp"

#include <gtest/gtest.h>
#include <zlib.h>

#include "replay/trace_file.hpp"

namespace gmlake::replay {
namespace {

std::uint64_t peak_live_bytes(const DeviceTrace& trace) {
  std::vector<std::uint64_t> bytes(trace.block_count);
  std::uint64_t live = 0, peak = 0;
  for (const Event& event : trace.events) {
    if (event.op == Op::alloc) live += bytes[event.id] = event.bytes;
    if (event.op == Op::free) live -= bytes[event.id];
    peak = live > peak ? live : peak;
  }
  return peak;
}

TEST(Generate, EveryPatternKeepsToItsOptions) {
  for (const Pattern& pattern : patterns()) {
    for (const std::uint64_t events : {1ull, 7ull, 5'000ull, 60'000ull}) {
      for (const std::uint32_t streams : {1u, 3u}) {
        const GenerateOptions options{42, events, std::uint64_t{1} << 30, streams};
        const auto trace = generate(pattern.name, options);
        ASSERT_TRUE(trace) << trace.error().text();
        ASSERT_EQ(trace->devices.size(), 1u);
        const DeviceTrace& device = trace->devices[0];
        EXPECT_EQ(trace->name, pattern.name);
        EXPECT_EQ(validate(device), std::nullopt) << pattern.name;
        EXPECT_EQ(device.events.size(), events) << pattern.name;
        EXPECT_EQ(device.streams.size(), streams);
        EXPECT_LE(peak_live_bytes(device), options.peak_bytes) << pattern.name;
        if (events == 60'000) {
          EXPECT_GE(peak_live_bytes(device), options.peak_bytes / 4) << pattern.name;
        }
      }
    }
  }
}

TEST(Generate, TheSmallestAndTheLargestPeakWork) {
  for (const Pattern& pattern : patterns()) {
    for (const std::uint64_t peak : {std::uint64_t{64} << 20, std::uint64_t{1} << 50}) {
      const auto trace = generate(pattern.name, {1, 20'000, peak, 1});
      ASSERT_TRUE(trace);
      EXPECT_EQ(validate(trace->devices[0]), std::nullopt) << pattern.name;
      EXPECT_LE(peak_live_bytes(trace->devices[0]), peak) << pattern.name;
    }
  }
}

TEST(Generate, ASeedIsATrace) {
  for (const Pattern& pattern : patterns()) {
    GenerateOptions options;
    options.events = 2'000;
    options.streams = 2;  // some patterns draw nothing else this early
    const auto one = generate(pattern.name, options), same = generate(pattern.name, options);
    options.seed = 2;
    const auto other = generate(pattern.name, options);
    ASSERT_TRUE(one && same && other);
    EXPECT_EQ(*one == *same, true) << pattern.name;
    EXPECT_EQ(*one == *other, false) << pattern.name;
  }
}

// Written down once: another platform, compiler or library must give the same.
TEST(Generate, TracesAreTheSameOnEveryPlatform) {
  const std::vector<std::pair<std::string_view, std::uint32_t>> checksums{
      {"sawtooth", 3576279171u},  {"pins", 2679041284u},      {"ramp-up", 4082567643u},   {"ramp-down", 3701805444u},
      {"power-law", 1980513391u}, {"long-tail", 3046249693u}, {"two-phase", 4071064586u}, {"epochs", 554735265u}};
  ASSERT_EQ(checksums.size(), patterns().size());
  for (const auto& [pattern, checksum] : checksums) {
    const auto trace = generate(pattern, {7, 30'000, std::uint64_t{4} << 30, 2});
    ASSERT_TRUE(trace);
    const std::string bytes = write_trace_file(*trace, Compression::none);
    EXPECT_EQ(crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()), checksum) << pattern;
  }
}

TEST(Generate, RefusesUnknownPatternsAndListsTheKnownOnes) {
  const auto trace = generate("sawtoth", {});
  ASSERT_FALSE(trace);
  EXPECT_EQ(
      trace.error().text(),
      "generate: unknown pattern \"sawtoth\"; there are sawtooth, pins, ramp-up, ramp-down, power-law, long-tail, "
      "two-phase, epochs");
}

TEST(Generate, RefusesOptionsOutOfRangeByName) {
  const auto reason = [](GenerateOptions options) {
    const auto trace = generate("pins", options);
    return trace ? "made" : trace.error().reason;
  };
  EXPECT_EQ(reason({1, 0, 1 << 30, 1}), "events: not between 1 and 2147483648");
  EXPECT_EQ(reason({1, (std::uint64_t{1} << 31) + 1, 1 << 30, 1}), "events: not between 1 and 2147483648");
  EXPECT_EQ(reason({1, 10, 1 << 20, 1}), "peak: not between 64 MiB and 1024 TiB");
  EXPECT_EQ(reason({1, 10, (std::uint64_t{1} << 50) + 1, 1}), "peak: not between 64 MiB and 1024 TiB");
  EXPECT_EQ(reason({1, 10, 1 << 30, 0}), "streams: not between 1 and 1024");
  EXPECT_EQ(reason({1, 10, 1 << 30, 1025}), "streams: not between 1 and 1024");
}

}  // namespace
}  // namespace gmlake::replay
