// Recordings of live allocators: what was recorded, replayed, does again what was done.
#include "gmlake/observe.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "../replay/files.hpp"
#include "entry/recording.hpp"
#include "job.hpp"
#include "replay/engine.hpp"
#include "replay/read_trace.hpp"

namespace gmlake::test {
namespace {

using replay::TemporaryFolder;

replay::ReplayReport replayed(const std::string& path, std::uint64_t granules) {
  const auto trace = replay::read_trace(path);
  EXPECT_TRUE(trace.ok()) << (trace.ok() ? "" : trace.error().text());
  if (!trace.ok() || trace->devices.size() != 1) return {};
  driver::ModelDriver model(small_model(granules));
  driver::RecordDriver record(model);
  replay::TargetOptions options;  // no steps between events: the machine that was recorded took none
  options.settings["background_worker"] = "false";
  auto target = replay::make_target("gmlake", record, options);
  EXPECT_TRUE(target.ok());
  const auto report = replay::replay(trace->devices.front(), **target, record, &model.streams(), {});
  EXPECT_TRUE(report.ok());
  return report.ok() ? *report : replay::ReplayReport{};
}

std::unique_ptr<Recorder> started(Allocator& allocator, const std::string& path, const RecorderOptions& options = {}) {
  FileError error;
  auto recorder = Recorder::start(allocator, path, error, options);
  EXPECT_TRUE(error.ok()) << error.message;
  return recorder;
}

TEST(Recorder, OfARandomJobReplaysToTheSamePeaks) {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const TemporaryFolder folder;
    Machine machine(small_model(4096));
    const std::string path = folder / "job.gmtrace";
    const auto recorder = started(machine.allocator(), path);
    ASSERT_NE(recorder, nullptr);
    Job job(machine.allocator(), seed, seed % 2 == 0 ? 4 : 1);
    job.run(4000);
    const DeviceStats stats = machine.stats();
    job.free_all();
    const FileError stopped = recorder->stop();
    ASSERT_TRUE(stopped.ok()) << stopped.message;
    EXPECT_EQ(recorder->dropped(), 0u);
    const replay::ReplayReport report = replayed(path, 4096);
    EXPECT_EQ(report.ooms, 0u);
    EXPECT_EQ(report.peak_requested_bytes, stats.all.requested_bytes.peak);
    EXPECT_EQ(report.peak_allocated_bytes, stats.all.allocated_bytes.peak);
    EXPECT_EQ(report.peak_reserved_bytes, stats.all.reserved_bytes.peak);
    EXPECT_EQ(folder.file_count(), 1u) << "nothing but the trace is left";
  }
}

TEST(Recorder, BeginsWithWhatIsLive) {
  const TemporaryFolder folder;
  Machine machine(small_model(4096));
  Job job(machine.allocator(), 7, 2);
  job.run(1000);
  const std::size_t live = job.live();
  ASSERT_GT(live, 0u);
  const DeviceStats before = machine.stats();
  const auto recorder = started(machine.allocator(), folder / "late.gmtrace");
  job.free_all();
  ASSERT_TRUE(recorder->stop().ok());
  const auto trace = replay::read_trace(folder / "late.gmtrace");
  ASSERT_TRUE(trace.ok()) << trace.error().text();
  EXPECT_EQ(trace->devices.at(0).block_count, live);
  EXPECT_EQ(replayed(folder / "late.gmtrace", 4096).peak_requested_bytes, before.all.requested_bytes.current);
}

TEST(Recorder, NamesTheDeviceAndItsStreams) {
  const TemporaryFolder folder;
  driver::ModelOptions options = small_model();
  options.devices = 3;
  Machine machine(options);
  const auto recorder = started(machine.allocator(), folder / "devices.gmtrace");
  void* first = machine.allocate(kGranule, 77, 2);
  void* second = machine.allocate(1000, 5, 1);
  ASSERT_TRUE(machine.allocator().try_deallocate(first, stream_handle(78)).ok());
  machine.deallocate(second, 5);
  ASSERT_TRUE(machine.allocator().trim().ok());
  ASSERT_TRUE(recorder->stop().ok());
  const auto trace = replay::read_trace(folder / "devices.gmtrace");
  ASSERT_TRUE(trace.ok()) << trace.error().text();
  ASSERT_EQ(trace->devices.size(), 2u);
  EXPECT_EQ(trace->name, "devices");
  EXPECT_EQ(trace->devices[0].device, 1);
  EXPECT_EQ(trace->devices[1].device, 2);
  EXPECT_EQ(trace->devices[1].streams, (std::vector<std::uint64_t>{0, 77, 78}));
  using replay::Op;
  const std::vector<replay::Event> expected = {{Op::alloc, 0, 1, 0, kGranule},
                                               {Op::record_stream, 0, 2, 0, 0},  // freed on another stream
                                               {Op::free, 0, 1, 0, 0},
                                               {Op::trim, 0, 0, 0, 0}};
  EXPECT_EQ(trace->devices[1].events, expected);
}

TEST(Recorder, CountsWhatItHadToDropAndStillWritesATrace) {
  const TemporaryFolder folder;
  Machine machine(small_model(4096));
  RecorderOptions options;
  options.events = 64;
  const auto recorder = started(machine.allocator(), folder / "fast.gmtrace", options);
  Job job(machine.allocator(), 3, 2);
  job.run(200'000);
  job.free_all();
  ASSERT_TRUE(recorder->stop().ok());
  EXPECT_GT(recorder->dropped(), 0u);
  const auto trace = replay::read_trace(folder / "fast.gmtrace");
  ASSERT_TRUE(trace.ok()) << trace.error().text();
  EXPECT_EQ(trace->devices.at(0).events.size(), recorder->events());
}

TEST(Recorder, WritesWhileManyThreadsAllocate) {
  const TemporaryFolder folder;
  Machine machine(small_model(16384));
  const auto recorder = started(machine.allocator(), folder / "threads.gmtrace");
  std::vector<std::thread> threads;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    threads.emplace_back([&machine, seed] {
      Job job(machine.allocator(), seed, 2);
      job.run(3000);
      job.free_all();
    });
  }
  for (std::thread& thread : threads) thread.join();
  const DeviceStats stats = machine.stats();
  ASSERT_TRUE(recorder->stop().ok());
  EXPECT_EQ(recorder->dropped(), 0u);
  const auto trace = replay::read_trace(folder / "threads.gmtrace");
  ASSERT_TRUE(trace.ok()) << trace.error().text();
  EXPECT_EQ(trace->devices.at(0).block_count, stats.all.allocation.allocated);
  EXPECT_EQ(replayed(folder / "threads.gmtrace", 16384).peak_requested_bytes, stats.all.requested_bytes.peak);
}

TEST(Recorder, SaysWhyItCannotStartAndLeavesNothing) {
  const TemporaryFolder folder;
  Machine machine;
  FileError error;
  EXPECT_EQ(Recorder::start(machine.allocator(), folder / "no/such/folder/a.gmtrace", error), nullptr);
  EXPECT_NE(error.message, "");
  EXPECT_EQ(folder.file_count(), 0u);
}

TEST(Recorder, SaysWhyItsFileCannotBeWritten) {
  const TemporaryFolder folder;
  Machine machine;
  std::filesystem::create_directory(folder / "taken");
  const auto recorder = started(machine.allocator(), folder / "taken");
  machine.deallocate(machine.allocate(kGranule));
  EXPECT_EQ(recorder->stop().message, "is a directory");
  EXPECT_EQ(recorder->stop().message, "is a directory") << "said again";
}

TEST(Recorder, LeavesTheParentsRecordingAloneInAChild) {
  const TemporaryFolder folder;
  Machine machine;
  auto recorder = started(machine.allocator(), folder / "fork.gmtrace");
  void* block = machine.allocate(kGranule);
  const pid_t child = ::fork();
  if (child == 0) {
    const bool refused = !recorder->stop().ok();
    std::_Exit(refused ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  machine.deallocate(block);
  ASSERT_TRUE(recorder->stop().ok());
  EXPECT_EQ(replay::read_trace(folder / "fork.gmtrace")->devices.at(0).block_count, 1u);
}

TEST(Recorder, OfOneAllocatorIsOneAtATime) {
  const TemporaryFolder folder;
  Machine machine;
  const auto first = started(machine.allocator(), folder / "first.gmtrace");
  FileError error;
  EXPECT_EQ(Recorder::start(machine.allocator(), folder / "second.gmtrace", error), nullptr);
  EXPECT_EQ(error.message, "the allocator is being recorded already");
  machine.deallocate(machine.allocate(kGranule));
  ASSERT_TRUE(first->stop().ok());
  EXPECT_EQ(replay::read_trace(folder / "first.gmtrace")->devices.at(0).block_count, 1u);
  ASSERT_TRUE(started(machine.allocator(), folder / "second.gmtrace")->stop().ok()) << "the first has stopped";
}

TEST(Recorder, PutsTheNumberOfTheProcessWhereTheOptionSaysSo) {
  const TemporaryFolder folder;
  Machine machine;
  Options options;
  FileError error;
  EXPECT_EQ(entry::start_recording(machine.allocator(), options, error), nullptr);
  EXPECT_TRUE(error.ok()) << "nothing is asked for";
  options.record = folder / "%p-of-%p.gmtrace";
  const auto recorder = entry::start_recording(machine.allocator(), options, error);
  ASSERT_NE(recorder, nullptr) << error.message;
  ASSERT_TRUE(recorder->stop().ok());
  const std::string process = std::to_string(::getpid());
  EXPECT_EQ(std::filesystem::exists(folder / (process + "-of-" + process + ".gmtrace")), true);
}

// A process that never stops its recorder, by name or by the option of its default allocator: its end writes the file.
void leave_recording(const std::string& path, bool by_option, void (*leave)(int)) {
  const pid_t child = ::fork();
  if (child == 0) {
    Allocator* allocator = nullptr;
    FileError error;
    if (by_option) {
      ::setenv("GMLAKE_CONF", ("driver:host,limit:64MiB,record:" + path).c_str(), 1);
      allocator = &default_allocator();
    } else {
      static auto own = Allocator::create({.driver = DriverKind::host, .limit_bytes = kGranule * 32}).value();
      allocator = own.get();
      static auto recorder = Recorder::start(*allocator, path, error);
    }
    for (int i = 0; i < 100; ++i) allocator->deallocate(allocator->allocate(static_cast<std::size_t>(1000 + i)));
    leave(0);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  const auto trace = replay::read_trace(path);
  ASSERT_TRUE(trace.ok()) << trace.error().text();
  EXPECT_EQ(trace->devices.at(0).block_count, 100u);
}

TEST(Recorder, IsWrittenWhenItsProcessExits) {
  const TemporaryFolder folder;
  leave_recording(folder / "option.gmtrace", true, std::exit);
  leave_recording(folder / "quick.gmtrace", true, std::quick_exit);
  leave_recording(folder / "recorder.gmtrace", false, std::exit);
  EXPECT_EQ(folder.file_count(), 3u);
}

TEST(Recorder, OfTheDefaultAllocatorThatCannotBeMadeIsSaidAndWorkGoesOn) {
  const TemporaryFolder folder;
  const pid_t child = ::fork();
  if (child == 0) {
    ::setenv("GMLAKE_CONF", ("driver:host,record:" + (folder / "no/such/folder/a.gmtrace")).c_str(), 1);
    std::exit(default_allocator().try_allocate(1000).ok() ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace gmlake::test
