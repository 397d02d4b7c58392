// Reading and writing files of every kind: formats told by content, and errors that say what is wrong with a path.
#include "replay/read_trace.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <thread>

#include "observe/output_file.hpp"
#include "replay/byte_source.hpp"
#include "replay/files.hpp"
#include "replay/random_trace.hpp"
#include "replay/write_trace.hpp"

namespace gmlake::replay {
namespace {

std::string gzip(const std::string& raw) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&stream, raw.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(raw.data()));
  stream.avail_in = static_cast<uInt>(raw.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

Trace small_trace() {
  Trace trace;
  trace.name = "small";
  trace.devices.push_back(trace_of_numbers({8, 16, 24, 3, 11, 8}));
  return trace;
}

std::string encoded(TraceFormat format) {
  auto bytes = encode_trace(small_trace(), format, "f");
  EXPECT_TRUE(bytes);
  return std::move(*bytes);
}

std::string reason_in(const std::string& path) {
  const auto trace = read_trace(path);
  return trace ? "read" : trace.error().reason;
}

TEST(ReadTrace, TellsFormatsByContentAndTakesThemGzipped) {
  const TemporaryFolder folder;
  const std::string path = folder / "misnamed.txt";
  for (const TraceFormat format :
       {TraceFormat::gmtrace, TraceFormat::rmm_csv, TraceFormat::snapshot, TraceFormat::snapshot_gz}) {
    for (const std::string& bytes : {encoded(format), gzip(encoded(format))}) {
      if (format == TraceFormat::snapshot_gz && bytes != encoded(format)) continue;  // twice gzipped is no trace
      put_bytes(path, bytes);
      const auto trace = read_trace(path);
      ASSERT_TRUE(trace) << trace.error().text();
      EXPECT_EQ(allocs_and_frees(trace->devices[0]).size(), allocs_and_frees(small_trace().devices[0]).size());
      EXPECT_EQ(trace->name, "misnamed.txt");
    }
  }
}

TEST(ReadTrace, NamesTracesAfterTheirFiles) {
  EXPECT_EQ(trace_name("runs/llama.pickle.gz"), "llama");
  EXPECT_EQ(trace_name("/a.b/llama.v2.csv"), "llama.v2");
  EXPECT_EQ(trace_name("x.gmtrace"), "x");
  EXPECT_EQ(trace_name(".gz"), ".gz");
  EXPECT_EQ(trace_name(""), "");
}

TEST(ReadTrace, SaysWhatIsWrongWithAPath) {
  const TemporaryFolder folder;
  EXPECT_EQ(reason_in(folder / "missing"), "cannot open: No such file or directory");
  EXPECT_EQ(reason_in(folder / "."), "is a directory, not a trace");
  EXPECT_EQ(reason_in("/dev/zero"), "is a device, not a trace");
  put_bytes(folder / "empty", "");
  EXPECT_EQ(reason_in(folder / "empty"), "is empty");
  put_bytes(folder / "emptied.gz", gzip(""));
  EXPECT_EQ(reason_in(folder / "emptied.gz"), "is empty");
  put_bytes(folder / "text", "hello\n");
  EXPECT_EQ(reason_in(folder / "text"),
            "is no trace: neither a PyTorch memory snapshot (pickle), nor an RMM log (CSV), nor a .gmtrace");
  if (::geteuid() != 0) {
    put_bytes(folder / "secret", "x");
    ::chmod((folder / "secret").c_str(), 0);
    EXPECT_EQ(reason_in(folder / "secret"), "cannot open: Permission denied");
  }
}

TEST(ReadTrace, RefusesOldPicklesThatCallCodeByTheOpcode) {
  const auto trace = read_trace_from("cposix\nsystem\n(S'true'\ntR.", "f");
  ASSERT_FALSE(trace);
  EXPECT_EQ(trace.error().text(), "f: at byte 0: opcode GLOBAL would run code: refused");
  const auto text = read_trace_from("columns\nof text\n", "f");
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().place, InputPlace::whole_file);
}

TEST(ReadTrace, ReadsFromAPipe) {
  const TemporaryFolder folder;
  const std::string path = folder / "pipe.gmtrace";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  std::thread writer([&] { EXPECT_EQ(write_trace(small_trace(), path, TraceFormat::gmtrace), std::nullopt); });
  const auto trace = read_trace(path);
  writer.join();
  ASSERT_TRUE(trace) << trace.error().text();
  EXPECT_EQ(trace->devices, small_trace().devices);
  struct stat info {};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_TRUE(S_ISFIFO(info.st_mode));  // written to, not replaced
}

TEST(ReadTrace, RefusesGzipBombsAndDamagedGzip) {
  const std::string bomb = gzip(std::string(64 << 20, '\0'));
  const auto trace = read_trace_from(bomb, "f");
  ASSERT_FALSE(trace);  // zeros are no format at all
  const auto inside =
      read_trace_from(gzip(std::string("\x80\x04X\0\0\0\x04", 7) + std::string(64 << 20, 'x') + "."), "f");
  ASSERT_FALSE(inside);
  EXPECT_NE(inside.error().reason.find("inflates to more than 16777216 bytes"), std::string::npos)
      << inside.error().text();
  std::string damaged = gzip(encoded(TraceFormat::snapshot));
  damaged[damaged.size() - 6] ^= 1;  // the checksum
  const auto wrong = read_trace_from(damaged, "f");
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().reason, "is damaged: incorrect data check");
}

TEST(ReadTrace, TakesGzipOfSeveralMembersAndPaddingButNoGarbage) {
  const std::string raw = encoded(TraceFormat::snapshot);
  const std::string two = gzip(raw.substr(0, 40)) + gzip(raw.substr(40));
  EXPECT_TRUE(read_trace_from(two, "f"));
  EXPECT_TRUE(read_trace_from(two + std::string(512, '\0'), "f"));
  EXPECT_FALSE(read_trace_from(two + "garbage", "f"));
}

TEST(ByteSource, GivesWhatIsThereHoweverItIsAskedFor) {
  std::string raw;
  for (int i = 0; i < 300'000; ++i) raw += std::to_string(i);
  const std::string compressed = gzip(raw);
  for (const std::size_t step : {std::size_t{1'000'003}, std::size_t{777}}) {
    ByteSource source(compressed, "f");
    std::string got;
    while (source.fill(step) || source.at() != source.end()) {
      EXPECT_EQ(source.offset_of(source.at()), got.size());
      const auto have = static_cast<std::size_t>(source.end() - source.at());
      const std::size_t taken = have < step ? have : step;
      got.append(source.at(), taken);
      source.set_at(source.at() + taken);
    }
    EXPECT_EQ(got == raw, true);
    EXPECT_TRUE(source.finish());
    EXPECT_EQ(source.received(), raw.size());
  }
}

TEST(WriteTrace, GoesByTheEndingOfTheName) {
  EXPECT_EQ(format_of("a.gmtrace"), TraceFormat::gmtrace);
  EXPECT_EQ(format_of("a.csv"), TraceFormat::rmm_csv);
  EXPECT_EQ(format_of("a.pickle"), TraceFormat::snapshot);
  EXPECT_EQ(format_of("a.pkl.gz"), TraceFormat::snapshot_gz);
  EXPECT_EQ(format_of("a.gz"), std::nullopt);
  EXPECT_EQ(format_of("gmtrace"), std::nullopt);
}

TEST(WriteTrace, RefusesWhatAFormatCannotHold) {
  Trace two = small_trace();
  two.devices.push_back(two.devices[0]);
  const auto csv = encode_trace(two, TraceFormat::rmm_csv, "f");
  ASSERT_FALSE(csv);
  EXPECT_EQ(csv.error().text(), "f: an RMM log holds one device, and this trace has 2");
  two.devices[1].device = 5000;
  EXPECT_FALSE(encode_trace(two, TraceFormat::snapshot, "f"));
  two.devices[0].block_count = 99;
  const auto invalid = encode_trace(two, TraceFormat::gmtrace, "f");
  ASSERT_FALSE(invalid);
  EXPECT_EQ(invalid.error().reason, "cannot write an invalid trace: claims more blocks than it has events");
}

RC_GTEST_PROP(WriteTraceProperty, SnapshotsKeepAllocsFreesAndHeldUses, (const std::vector<std::uint32_t>& numbers)) {
  Trace trace;
  trace.devices.push_back(trace_of_numbers(numbers));
  // A segment is kept only with an alloc or a free after it.
  trace.devices[0].recorded_segments.clear();
  trace.devices[0].recorded_peak_reserved_bytes = 0;
  RC_PRE(trace.devices[0].block_count > 0);
  const auto bytes = encode_trace(trace, TraceFormat::snapshot, "f");
  RC_ASSERT(bytes.ok());
  const auto once = read_trace_from(*bytes, "f");
  RC_ASSERT(once.ok());
  const auto was = allocs_and_frees(trace.devices[0]), is = allocs_and_frees(once->devices[0]);
  RC_ASSERT(was.size() == is.size());
  for (std::size_t i = 0; i < was.size(); ++i) {
    RC_ASSERT(was[i].op == is[i].op && was[i].id == is[i].id && was[i].bytes == is[i].bytes);
  }
  const auto again = encode_trace(*once, TraceFormat::snapshot, "f");
  RC_ASSERT(again.ok());
  const auto twice = read_trace_from(*again, "f");
  RC_ASSERT(twice.ok());
  RC_ASSERT(twice->devices == once->devices);
}

TEST(OutputFile, ReplacesAFileAndKeepsItsPermissions) {
  const TemporaryFolder folder;
  put_bytes(folder / "f", "old");
  ASSERT_EQ(::chmod((folder / "f").c_str(), 0640), 0);
  EXPECT_EQ(observe::write_file_atomically(folder / "f", "new"), std::nullopt);
  EXPECT_EQ(bytes_of(folder / "f"), "new");
  struct stat info {};
  ASSERT_EQ(::stat((folder / "f").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0640u);
  EXPECT_EQ(folder.file_count(), 1u);
}

TEST(OutputFile, FollowsALinkAndLeavesIt) {
  const TemporaryFolder folder;
  put_bytes(folder / "target", "old");
  ASSERT_EQ(::symlink("target", (folder / "link").c_str()), 0);
  EXPECT_EQ(observe::write_file_atomically(folder / "link", "new"), std::nullopt);
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link"));
  EXPECT_EQ(bytes_of(folder / "target"), "new");
}

TEST(OutputFile, FailsWithAReasonAndLeavesNothingBehind) {
  const TemporaryFolder folder;
  EXPECT_EQ(observe::write_file_atomically(folder / ".", "new"), "is a directory");
  EXPECT_EQ(observe::write_file_atomically(folder / "no/such/folder", "new"),
            "cannot make a temporary file beside it: No such file or directory");
  EXPECT_EQ(observe::write_file_atomically("/dev/full", "new"), "cannot write: No space left on device");
  EXPECT_EQ(observe::write_file_atomically("/dev/null", "new"), std::nullopt);
  EXPECT_EQ(folder.file_count(), 0u);
}

TEST(OutputFile, LeavesAReadOnlyFileAlone) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write every file";
  const TemporaryFolder folder;
  put_bytes(folder / "f", "old");
  ASSERT_EQ(::chmod((folder / "f").c_str(), 0444), 0);
  EXPECT_EQ(observe::write_file_atomically(folder / "f", "new"), "cannot write: Permission denied");
  EXPECT_EQ(bytes_of(folder / "f"), "old");
}

}  // namespace
}  // namespace gmlake::replay
