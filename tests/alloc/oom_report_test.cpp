// What an out-of-memory reports: the state, what each rung found, and one remedy. Each remedy is put to the test: once
// it is done, the same request succeeds, and with less it does not.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "support/machine.hpp"

namespace gmlake::test {
namespace {

OutOfMemoryReport report_of(Machine& machine, std::uint64_t bytes, std::uint64_t stream = 0) {
  EXPECT_FALSE(machine.allocator().try_allocate(bytes, 0, stream_handle(stream)).ok());
  machine.allocator().check();
  const std::optional<OutOfMemoryReport> report = machine.allocator().last_oom();
  EXPECT_TRUE(report.has_value());
  return report.value_or(OutOfMemoryReport{});
}

std::string remedy_text(const OutOfMemoryReport& report) {
  char text[512];
  const std::size_t length = write_remedy(report, text, sizeof text);
  return {text, length};
}

TEST(OomReport, HasAWordForEveryOutcomeOfARung) {
  EXPECT_STREQ(to_string(RungOutcome::not_tried), "not tried");
  EXPECT_STREQ(to_string(RungOutcome::too_little), "too little");
  EXPECT_STREQ(to_string(RungOutcome::no_addresses), "no address range");
  EXPECT_STREQ(to_string(RungOutcome::no_mappings), "too many mappings");
  EXPECT_STREQ(to_string(RungOutcome::refused), "refused by the driver");
}

TEST(OomReport, IsNoneBeforeTheFirst) {
  Machine machine(small_model(40));
  EXPECT_FALSE(machine.allocator().last_oom().has_value());
  EXPECT_FALSE(machine.allocator().last_oom(7).has_value());
  machine.deallocate(machine.allocate(40 * kGranule));
  EXPECT_FALSE(machine.allocator().last_oom().has_value());
}

TEST(OomReport, TellsTheStateOfTheDevice) {
  Options options;
  options.limit_bytes = 60 * kGranule;
  Machine machine(small_model(100), options);
  const driver::Handle taken = machine.take_memory(10 * kGranule);
  void* live = machine.allocate(25 * kGranule);
  void* cached = machine.allocate(8 * kGranule);
  machine.deallocate(cached);
  const OutOfMemoryReport report = report_of(machine, 50 * kGranule - 100, 3);
  EXPECT_EQ(report.error, (Error{ErrorCode::out_of_memory, Step::allocate, 50 * kGranule - 100}));
  EXPECT_EQ(report.device, 0);
  EXPECT_EQ(report.stream, 3u);
  EXPECT_EQ(report.requested_bytes, 50 * kGranule - 100);
  EXPECT_EQ(report.device_total_bytes, 100 * kGranule);
  EXPECT_TRUE(report.device_free_known);
  const DeviceStats stats = machine.stats();
  EXPECT_EQ(report.device_free_bytes, 90 * kGranule - stats.all.reserved_bytes.current);
  EXPECT_EQ(report.limit_bytes, 60 * kGranule);
  EXPECT_EQ(report.reserved_bytes, stats.all.reserved_bytes.current);
  EXPECT_EQ(report.allocated_bytes, 25 * kGranule);
  EXPECT_EQ(report.active_bytes, 25 * kGranule);
  EXPECT_EQ(report.cached_bytes, stats.all.reserved_bytes.current - 25 * kGranule);
  EXPECT_EQ(report.movable_bytes, report.cached_bytes);
  EXPECT_EQ(report.largest_free_run_bytes, report.cached_bytes);
  EXPECT_EQ(report.mappings, stats.mappings);
  EXPECT_EQ(report.callback_rounds, 0u);
  machine.deallocate(live);
  machine.return_memory(taken, 10 * kGranule);
}

TEST(OomReport, TellsWhatEachRungFound) {
  Machine machine(small_model(40));
  machine.streams().hold({0, 2});
  void* live = machine.allocate(10 * kGranule, 9);
  void* own = machine.allocate(10 * kGranule);
  void* passed = machine.allocate(10 * kGranule, 1);
  void* running = machine.allocate(10 * kGranule, 2);
  ASSERT_TRUE(machine.device().launch({0, 2}, {{address_of(running), 10 * kGranule, true}}).ok());
  machine.deallocate(own);
  machine.deallocate(passed, 1);
  machine.deallocate(running, 2);
  const OutOfMemoryReport report = report_of(machine, 35 * kGranule);
  EXPECT_EQ(report.rung(Rung::own_stream).found_bytes, 10 * kGranule);
  EXPECT_EQ(report.rung(Rung::passed_streams).found_bytes, 10 * kGranule);
  EXPECT_EQ(report.rung(Rung::stream_wait).found_bytes, 10 * kGranule);
  EXPECT_EQ(report.rung(Rung::release_cached).found_bytes, 20 * kGranule);
  EXPECT_EQ(report.rung(Rung::wait).found_bytes, 0u) << "a stream-wait would have had it already";
  for (const Rung rung :
       {Rung::own_stream, Rung::passed_streams, Rung::stream_wait, Rung::release_cached, Rung::wait}) {
    EXPECT_EQ(report.rung(rung).outcome, RungOutcome::too_little) << to_string(rung);
  }
  EXPECT_EQ(report.rung(Rung::callbacks).outcome, RungOutcome::not_tried);
  machine.deallocate(live, 9);
}

TEST(OomReport, TellsWhatWaitingFoundWhereNoStreamMayWait) {
  Options options;
  options.stream_wait = StreamWait::never;
  Machine machine(small_model(40), options);
  machine.streams().hold({0, 2});
  void* live = machine.allocate(20 * kGranule);
  void* running = machine.allocate(10 * kGranule, 2);
  ASSERT_TRUE(machine.device().launch({0, 2}, {{address_of(running), 10 * kGranule, true}}).ok());
  machine.deallocate(running, 2);
  const OutOfMemoryReport report = report_of(machine, 25 * kGranule);
  EXPECT_EQ(report.rung(Rung::stream_wait).outcome, RungOutcome::not_tried);
  EXPECT_EQ(report.rung(Rung::release_cached).found_bytes, 0u);
  EXPECT_EQ(report.rung(Rung::wait).found_bytes, 10 * kGranule);
  machine.deallocate(live);
}

TEST(OomReport, IsCarriedByTheException) {
  Machine machine(small_model(40));
  void* live = machine.allocate(30 * kGranule);
  try {
    (void)machine.allocator().allocate(20 * kGranule);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const OutOfMemoryError& error) {
    EXPECT_EQ(error.report().requested_bytes, 20 * kGranule);
    EXPECT_EQ(error.report().allocated_bytes, 30 * kGranule);
    EXPECT_EQ(error.what(), describe(error.report()));
    EXPECT_EQ(describe(*machine.allocator().last_oom()), error.what());
    EXPECT_EQ(
        describe(error.report()),
        "out of memory: 40.00 MiB requested on device 0, stream 0x0 (at allocate)\n"
        "Live blocks hold 60.00 MiB: free 20.00 MiB of it.\n"
        "Held: 60.00 MiB of a limit of 80.00 MiB: live 60.00 MiB, in use on other streams 0 B, cached 0 B "
        "(movable 0 B, largest run 0 B), lost 0 B; 30 mappings, stale ones of 0 B.\n"
        "Device: 20.00 MiB free of 80.00 MiB; others hold 0 B.\n"
        "Tried: own_stream: found 0 B, too little; passed_streams: found 0 B, too little; stream_wait: found 0 B, "
        "too little; release_cached: gave back 0 B, too little; wait: found 0 B, too little; callbacks: not tried.");
  }
  VirBlockOptions here;
  here.allocator = &machine.allocator();
  try {
    (void)create_vir_block(20 * kGranule, here);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const OutOfMemoryError& error) {
    EXPECT_EQ(error.report().remedy, Remedy::free_memory);
  }
  machine.deallocate(live);
}

TEST(OomReport, IsCutShortWhereItDoesNotFit) {
  OutOfMemoryReport report;
  report.requested_bytes = UINT64_MAX;
  const std::string whole = describe(report);
  ASSERT_LT(whole.size(), kReportTextBytes);
  for (std::size_t size = 0; size < whole.size() + 2; ++size) {
    std::vector<char> text(size + 1, 'x');
    const std::size_t length = write_report(report, text.data(), size);
    EXPECT_EQ(length, size == 0 ? 0 : std::min(size - 1, whole.size()));
    EXPECT_EQ(std::string(text.data(), length), whole.substr(0, length));
    EXPECT_EQ(text[size], 'x') << "past the end";
    if (size > 0) {
      EXPECT_EQ(text[length], '\0');
    }
  }
}

// The longest that figures can make it.
TEST(OomReport, AlwaysFitsTheExceptionsText) {
  OutOfMemoryReport report;
  for (std::uint64_t* field :
       {&report.stream, &report.requested_bytes, &report.device_total_bytes, &report.limit_bytes,
        &report.reserved_bytes, &report.active_bytes, &report.cached_bytes, &report.movable_bytes, &report.lost_bytes,
        &report.largest_free_run_bytes, &report.stale_bytes, &report.mappings, &report.remedy_bytes}) {
    *field = UINT64_MAX;
  }
  report.device = INT32_MIN;
  report.device_free_known = true;
  for (RungReport& rung : report.rungs) rung = {RungOutcome::refused, UINT64_MAX};
  for (int code = 0; code <= static_cast<int>(ErrorCode::unknown); ++code) {
    report.error.code = static_cast<ErrorCode>(code);
    for (int remedy = 0; remedy <= static_cast<int>(Remedy::retry); ++remedy) {
      report.remedy = static_cast<Remedy>(remedy);
      EXPECT_LT(describe(report).size(), kReportTextBytes - 1);
      EXPECT_FALSE(remedy_text(report).empty());
    }
  }
}

TEST(Remedy, OfALimitIsToRaiseItByThatMuch) {
  Options options;
  options.limit_bytes = 40 * kGranule + 1000;
  Machine machine(small_model(100), options);
  void* live = machine.allocate(30 * kGranule);
  machine.deallocate(machine.allocate(4 * kGranule, 1), 1);
  const OutOfMemoryReport report = report_of(machine, 20 * kGranule - 5);
  EXPECT_EQ(report.remedy, Remedy::raise_limit);
  EXPECT_EQ(report.remedy_bytes, 10 * kGranule - 1000);
  ASSERT_TRUE(machine.allocator().set_limit(report.limit_bytes + report.remedy_bytes - 1).ok());
  EXPECT_EQ(machine.refused(20 * kGranule - 5).code, ErrorCode::out_of_memory);
  ASSERT_TRUE(machine.allocator().set_limit(report.limit_bytes + report.remedy_bytes).ok());
  machine.deallocate(machine.allocate(20 * kGranule - 5));
  machine.deallocate(live);
}

TEST(Remedy, OfALimitBelowWhatIsHeldCountsThatToo) {
  Machine machine(small_model(100));
  void* live = machine.allocate(30 * kGranule);
  ASSERT_TRUE(machine.allocator().set_limit(10 * kGranule).ok());
  const OutOfMemoryReport report = report_of(machine, 5 * kGranule);
  EXPECT_EQ(report.remedy, Remedy::raise_limit);
  EXPECT_EQ(report.remedy_bytes, 25 * kGranule);
  ASSERT_TRUE(machine.allocator().set_limit(35 * kGranule).ok());
  machine.deallocate(machine.allocate(5 * kGranule));
  machine.deallocate(live);
}

TEST(Remedy, OfADeviceThatOthersFillIsThatTheyHoldLess) {
  Machine machine(small_model(100));
  const driver::Handle some = machine.take_memory(9 * kGranule);
  const driver::Handle last = machine.take_memory(kGranule);
  const driver::Handle rest = machine.take_memory(50 * kGranule);
  void* live = machine.allocate(30 * kGranule);
  const OutOfMemoryReport report = report_of(machine, 20 * kGranule);
  EXPECT_EQ(report.error.step, Step::create);
  EXPECT_EQ(report.remedy, Remedy::other_processes);
  EXPECT_EQ(report.remedy_bytes, 10 * kGranule);
  EXPECT_NE(remedy_text(report).find("hold 120.00 MiB of the device: 20.00 MiB less"), std::string::npos);
  machine.return_memory(some, 9 * kGranule);
  EXPECT_EQ(machine.refused(20 * kGranule).code, ErrorCode::out_of_memory);
  machine.return_memory(last, kGranule);
  machine.deallocate(machine.allocate(20 * kGranule));
  machine.deallocate(live);
  machine.return_memory(rest, 50 * kGranule);
}

TEST(Remedy, OfAFullDeviceIsToFreeThatMuch) {
  Machine machine(small_model(40));
  std::vector<void*> blocks;
  for (int i = 0; i < 40; ++i) blocks.push_back(machine.allocate(kGranule));
  for (int i = 0; i < 3; ++i) machine.deallocate(blocks[static_cast<std::size_t>(7 * i)]);
  const OutOfMemoryReport report = report_of(machine, 8 * kGranule);
  EXPECT_EQ(report.remedy, Remedy::free_memory);
  EXPECT_EQ(report.remedy_bytes, 5 * kGranule);
  for (std::size_t i = 1; i < 5; ++i) machine.deallocate(blocks[i]);
  EXPECT_EQ(machine.refused(8 * kGranule).code, ErrorCode::out_of_memory);
  machine.deallocate(blocks[5]);
  void* stitched = machine.allocate(8 * kGranule);
  machine.deallocate(stitched);
}

TEST(Remedy, OfMemoryNextToLiveBlocksIsToFreeThese) {
  Machine machine(small_model(40));
  std::vector<void*> blocks;
  for (int i = 0; i < 64; ++i) blocks.push_back(machine.allocate(1280_KiB));  // five eighths of a granule
  for (std::size_t i = 0; i < blocks.size(); i += 2) machine.deallocate(blocks[i]);
  const OutOfMemoryReport report = report_of(machine, 30_MiB);
  EXPECT_EQ(report.remedy, Remedy::unpin);
  EXPECT_EQ(report.remedy_bytes, 40_MiB);
  EXPECT_EQ(report.movable_bytes, 0u);
  EXPECT_EQ(report.cached_bytes, 40_MiB);
  for (std::size_t i = 1; i < blocks.size(); i += 2) machine.deallocate(blocks[i]);
  machine.deallocate(machine.allocate(30_MiB));
}

// Waiting for them is a rung: they are still in use at its end only where the driver would not wait.
TEST(Remedy, OfMemoryInUseOnOtherStreamsIsTheEndOfThatWork) {
  Machine machine(small_model(40));
  void* block = machine.allocate(30 * kGranule);
  for (const std::uint64_t stream : {1, 2}) {
    machine.streams().hold({0, stream});
    ASSERT_TRUE(machine.device().launch({0, stream}, {{address_of(block), 30 * kGranule, false}}).ok());
    ASSERT_TRUE(machine.allocator().try_record_stream(block, stream_handle(stream)).ok());
  }
  machine.deallocate(block);
  machine.fault().arm({.kind = Step::event_synchronize, .nth = 1, .sticky = true, .code = ErrorCode::out_of_memory});
  const OutOfMemoryReport report = report_of(machine, 20 * kGranule);
  machine.fault().heal();
  EXPECT_EQ(report.remedy, Remedy::other_streams);
  EXPECT_EQ(report.remedy_bytes, 30 * kGranule);
  machine.streams().advance_all();
  machine.deallocate(machine.allocate(20 * kGranule));
}

TEST(Remedy, OfTooManyMappingsIsFewer) {
  driver::ModelOptions device = small_model();
  device.granularity = 64_KiB;
  device.capacity_bytes = 2000 * device.granularity;
  Options options;
  options.max_mappings = 1024;
  options.max_phy_block_bytes = 64_KiB;
  Machine machine(device, options);
  void* live = machine.allocate(1000 * device.granularity);
  const OutOfMemoryReport report = report_of(machine, 100 * device.granularity);
  EXPECT_EQ(report.error.code, ErrorCode::too_many_mappings);
  EXPECT_EQ(report.remedy, Remedy::mappings);
  EXPECT_EQ(report.rung(Rung::own_stream).outcome, RungOutcome::no_mappings);
  EXPECT_EQ(machine.stats().num_ooms, 0u) << "memory there is";
  machine.deallocate(live);
  machine.deallocate(machine.allocate(100 * device.granularity));
}

TEST(Remedy, OfTooFewAddressesIsThatRange) {
  driver::ModelOptions device = small_model(100);
  device.max_address_bytes = 130 * kGranule;
  Machine machine(device);
  void* block = machine.allocate(40 * kGranule);
  const OutOfMemoryReport report = report_of(machine, 40 * kGranule, 1);
  EXPECT_EQ(report.error.code, ErrorCode::address_space);
  EXPECT_EQ(report.remedy, Remedy::addresses);
  EXPECT_EQ(report.rung(Rung::wait).outcome, RungOutcome::no_addresses);
  machine.deallocate(block);
  ASSERT_TRUE(machine.allocator().trim().ok());
  machine.deallocate(machine.allocate(40 * kGranule, 1), 1);
}

TEST(Remedy, OfARefusalWithoutNeedIsToTryAgain) {
  Machine machine(small_model(40));
  machine.fault().arm({.kind = Step::create, .nth = 1, .sticky = true, .code = ErrorCode::out_of_memory});
  const OutOfMemoryReport report = report_of(machine, 20 * kGranule);
  machine.fault().heal();
  EXPECT_EQ(report.remedy, Remedy::retry);
  EXPECT_EQ(report.rung(Rung::own_stream).outcome, RungOutcome::refused);
  machine.deallocate(machine.allocate(20 * kGranule));
}

TEST(Remedy, OfLostMemoryNamesIt) {
  Machine machine(small_model(40));
  void* live = machine.allocate(5 * kGranule);
  machine.deallocate(machine.allocate(30 * kGranule));
  machine.fault().arm({.kind = Step::release, .nth = 1, .sticky = true, .code = ErrorCode::unknown});
  ASSERT_TRUE(machine.allocator().trim().ok());
  machine.fault().heal();
  ASSERT_EQ(machine.stats().lost_bytes, 30 * kGranule);
  const OutOfMemoryReport report = report_of(machine, 20 * kGranule);
  EXPECT_EQ(report.remedy, Remedy::lost);
  EXPECT_EQ(report.lost_bytes, 30 * kGranule);
  machine.deallocate(live);
}

TEST(Remedy, WhereTheDriverDoesNotSayWhatIsFreeStillNamesTheLimit) {
  Options options;
  options.limit_bytes = 10 * kGranule;
  Machine machine(small_model(40), options);
  void* live = machine.allocate(8 * kGranule);
  machine.fault().arm({.kind = Step::memory_info, .nth = 1, .sticky = true, .code = ErrorCode::unknown});
  const OutOfMemoryReport report = report_of(machine, 5 * kGranule);
  machine.fault().heal();
  EXPECT_FALSE(report.device_free_known);
  EXPECT_EQ(report.remedy, Remedy::raise_limit);
  EXPECT_EQ(report.remedy_bytes, 3 * kGranule);
  EXPECT_NE(describe(report).find("does not say how much is free"), std::string::npos);
  machine.deallocate(live);
}

// Jobs of all sizes on several streams, under limits and beside other processes, until a request fails. Whatever the
// report then names as enough is enough.
TEST(Remedy, IsEnoughWhateverCameBefore) {
  constexpr std::uint64_t kSeeds = 60;
  std::printf("seeds 1 to %llu\n", static_cast<unsigned long long>(kSeeds));
  std::array<int, static_cast<std::size_t>(Remedy::retry) + 1> seen{};
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    driver::ModelOptions device = small_model();
    device.granularity = 64_KiB;
    const std::uint64_t granule = device.granularity;
    device.capacity_bytes = (600 + random() % 3000) * granule;
    Options options;
    options.limit_bytes = (100 + random() % 3000) * granule + random() % granule;
    options.max_phy_block_bytes = granule << (random() % 6);
    Machine machine(device, options);
    std::vector<driver::Handle> taken;
    for (std::uint64_t n = random() % 300; n > 0; --n) taken.push_back(machine.take_memory(granule));
    std::vector<std::pair<void*, std::uint64_t>> blocks;
    for (int tries = 0; tries < 5000; ++tries) {
      const std::uint64_t stream = random() % 3;
      const std::uint64_t bytes = 1 + random() % (random() % 4 == 0 ? 100 * granule : 20 * granule);
      if (const Result<void*> pointer = machine.allocator().try_allocate(bytes, 0, stream_handle(stream))) {
        blocks.emplace_back(*pointer, stream);
        if (blocks.size() > 10 && random() % 3 != 0) {
          std::swap(blocks[random() % blocks.size()], blocks.back());
          machine.deallocate(blocks.back().first, blocks.back().second);
          blocks.pop_back();
        }
        continue;
      }
      const OutOfMemoryReport report = *machine.allocator().last_oom();
      ++seen[static_cast<std::size_t>(report.remedy)];
      if (report.remedy == Remedy::raise_limit) {
        ASSERT_TRUE(machine.allocator().set_limit(report.limit_bytes + report.remedy_bytes).ok());
      } else if (report.remedy == Remedy::other_processes) {
        for (std::uint64_t given = 0; given < report.remedy_bytes; given += granule) {
          ASSERT_FALSE(taken.empty());
          machine.return_memory(taken.back(), granule);
          taken.pop_back();
        }
      } else if (report.remedy != Remedy::retry) {
        break;
      }
      void* pointer = machine.allocate(bytes, stream);
      ASSERT_NE(pointer, nullptr) << describe(report);
      blocks.emplace_back(pointer, stream);
    }
    for (const auto& [pointer, stream] : blocks) machine.deallocate(pointer, stream);
    for (const driver::Handle handle : taken) machine.return_memory(handle, granule);
  }
  EXPECT_GT(seen[static_cast<std::size_t>(Remedy::raise_limit)], 50);
  EXPECT_GT(seen[static_cast<std::size_t>(Remedy::other_processes)], 50);
  std::printf("%d limits raised, %d times others gave way\n", seen[static_cast<std::size_t>(Remedy::raise_limit)],
              seen[static_cast<std::size_t>(Remedy::other_processes)]);
}

}  // namespace
}  // namespace gmlake::test
