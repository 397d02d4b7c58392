// Snapshot files of live allocators, read back by the reader of PyTorch's snapshots.
#include <sys/stat.h>

#include "../replay/files.hpp"
#include "gmlake/observe.hpp"
#include "job.hpp"
#include "observe/output_file.hpp"
#include "replay/engine.hpp"
#include "replay/read_trace.hpp"

namespace gmlake::test {
namespace {

using replay::TemporaryFolder;

TEST(OutputFile, LeavesTheOldFileWholeUntilTheNewOneIs) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.json";
  ASSERT_FALSE(observe::write_file_atomically(path, "old"));
  {
    observe::OutputFile given_up(path);
    given_up.write(std::string(1 << 20, 'x'));
    EXPECT_EQ(replay::bytes_of(path), "old");
  }
  EXPECT_EQ(replay::bytes_of(path), "old");
  EXPECT_EQ(folder.file_count(), 1u) << "and nothing beside it";
  ASSERT_FALSE(observe::write_file_atomically(path, "new"));
  EXPECT_EQ(replay::bytes_of(path), "new");
}

TEST(PickleSnapshot, IsReadBackWithItsEvents) {
  const TemporaryFolder folder;
  Machine machine(small_model(4096));
  ASSERT_TRUE(machine.allocator().keep_history(1 << 16).ok());
  Job job(machine.allocator(), 1, 1);
  job.run(4000);
  const FileError written = write_pickle_snapshot(machine.allocator(), folder / "a.pickle");
  ASSERT_TRUE(written.ok()) << written.message;
  const DeviceStats stats = machine.stats();
  const auto trace = replay::read_trace(folder / "a.pickle");
  ASSERT_TRUE(trace.ok()) << trace.error().text();
  ASSERT_EQ(trace->devices.size(), 1u);
  EXPECT_EQ(trace->devices[0].block_count, stats.all.allocation.allocated);
  EXPECT_EQ(trace->devices[0].events.size(), stats.all.allocation.allocated + stats.all.allocation.freed);
  EXPECT_EQ(trace->devices[0].recorded_peak_reserved_bytes, stats.all.reserved_bytes.peak)
      << "what was mapped and unmapped adds up";
  driver::ModelDriver model(small_model(4096));
  driver::RecordDriver record(model);
  replay::TargetOptions options;  // no steps between events: the machine that was recorded took none
  options.settings["background_worker"] = "false";
  auto target = replay::make_target("gmlake", record, options);
  const auto report = replay::replay(trace->devices[0], **target, record, &model.streams(), {});
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->peak_requested_bytes, stats.all.requested_bytes.peak);
  EXPECT_EQ(report->peak_reserved_bytes, stats.all.reserved_bytes.peak);
  job.free_all();
}

TEST(PickleSnapshot, OfAShortHistoryStillHasWhatIsLive) {
  const TemporaryFolder folder;
  Machine machine(small_model(4096));
  Job job(machine.allocator(), 2, 1);
  job.run(500);
  ASSERT_TRUE(machine.allocator().keep_history(100).ok());
  job.run(1500);
  const std::uint64_t live = machine.stats().all.requested_bytes.current;
  ASSERT_TRUE(write_pickle_snapshot(machine.allocator(), folder / "short.pickle").ok());
  const auto trace = replay::read_trace(folder / "short.pickle");
  ASSERT_TRUE(trace.ok()) << trace.error().text();
  std::uint64_t at_end = 0;
  std::vector<std::uint64_t> bytes;
  for (const replay::Event& event : trace->devices[0].events) {
    if (event.op == replay::Op::alloc) bytes.push_back(event.bytes), at_end += event.bytes;
    if (event.op == replay::Op::free) at_end -= bytes[event.id];
  }
  // A block that was live before the history began, and is freed in it, is known by its rounded size alone.
  EXPECT_EQ(at_end, live);
  job.free_all();
}

TEST(PickleSnapshot, HasAnEventForARequestThatIsRefused) {
  const TemporaryFolder folder;
  Machine machine;
  ASSERT_TRUE(machine.allocator().keep_history(64).ok());
  void* block = machine.allocate(500 * kGranule);
  (void)machine.refused(100 * kGranule);
  const HistoryPart part = machine.allocator().history(0, 0, 64);
  ASSERT_FALSE(part.events.empty());
  EXPECT_EQ(part.events.back().action, HistoryEvent::Action::oom);
  EXPECT_EQ(part.events.back().bytes, 100 * kGranule);
  EXPECT_EQ(part.events.back().address, 12 * kGranule) << "what the device has left";
  ASSERT_TRUE(write_pickle_snapshot(machine.allocator(), folder / "oom.pickle").ok());
  const std::string bytes = replay::bytes_of(folder / "oom.pickle");
  EXPECT_NE(bytes.find("device_free"), std::string::npos);
  machine.deallocate(block);
}

TEST(History, SaysWhenAFreeThatWaitedIsComplete) {
  Machine machine;
  machine.streams().hold({0, 1});
  ASSERT_TRUE(machine.allocator().keep_history(64).ok());
  void* block = machine.allocate(kGranule);
  ASSERT_TRUE(machine.allocator().try_record_stream(block, stream_handle(1)).ok());
  ASSERT_TRUE(machine.device().launch({0, 1}, {{address_of(block), kGranule, true}}).ok());
  machine.deallocate(block);
  const auto actions = [&] {
    std::vector<HistoryEvent::Action> found;
    for (const HistoryEvent& event : machine.allocator().history(0, 0, 64).events) found.push_back(event.action);
    return found;
  };
  using Action = HistoryEvent::Action;
  EXPECT_EQ(actions(),
            (std::vector{Action::segment_map, Action::alloc, Action::record_stream, Action::free_requested}));
  machine.streams().advance_all();
  ASSERT_TRUE(machine.allocator().trim().ok());
  EXPECT_EQ(actions(), (std::vector{Action::segment_map, Action::alloc, Action::record_stream, Action::free_requested,
                                    Action::trim, Action::free_completed, Action::segment_unmap}));
}

TEST(History, KeepsTheLastEventsAndEndsWhenToldTo) {
  Machine machine;
  ASSERT_TRUE(machine.allocator().keep_history(10).ok());  // 16 are kept
  for (int i = 0; i < 100; ++i) machine.deallocate(machine.allocate(kGranule));
  HistoryPart part = machine.allocator().history(0, 0, 1000);
  EXPECT_EQ(part.events.size(), 16u);
  EXPECT_EQ(part.first + part.events.size(), part.end);
  part = machine.allocator().history(0, part.end - 3, 2);
  EXPECT_EQ(part.events.size(), 2u);
  EXPECT_EQ(part.first, part.end - 3);
  ASSERT_TRUE(machine.allocator().keep_history(0).ok());
  machine.deallocate(machine.allocate(kGranule));
  EXPECT_TRUE(machine.allocator().history(0, 0, 1000).events.empty());
  EXPECT_EQ(machine.allocator().keep_history(std::size_t{1} << 40).error().code, ErrorCode::invalid_size);
}

TEST(SnapshotFiles, ReplaceWholeFilesAndKeepTheOldOneWhereTheyFail) {
  const TemporaryFolder folder;
  Machine machine;
  void* block = machine.allocate(kGranule);
  for (const auto write : {&write_pickle_snapshot, &write_json_snapshot}) {
    EXPECT_NE(write(machine.allocator(), folder / "no/such/folder").message, "");
    std::filesystem::create_directory(folder / "taken");
    EXPECT_EQ(write(machine.allocator(), folder / "taken").message, "is a directory");
    replay::put_bytes(folder / "old", "old");
    ASSERT_TRUE(write(machine.allocator(), folder / "old").ok());
    EXPECT_NE(replay::bytes_of(folder / "old"), "old");
    EXPECT_EQ(write(machine.allocator(), "/dev/full").message, "cannot write: No space left on device");
    EXPECT_EQ(folder.file_count(), 2u) << "no temporary file is left";
  }
  machine.deallocate(block);
}

}  // namespace
}  // namespace gmlake::test
