// Files out of a live allocator: snapshots for PyTorch's tools and for programs, and recordings to replay.
//
// Files are written whole or not at all: beside their target, flushed, and renamed over it. No lock of the allocator is
// held while a file is written, and memory is taken for what the allocator holds, not for the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "gmlake/allocator.hpp"

namespace gmlake {

// Why a file could not be written, in words; empty where it was.
struct FileError {
  std::string message;
  bool ok() const { return message.empty(); }
};

// What torch.cuda.memory._dump_snapshot() writes: every tool that reads that reads this, PyTorch's memory_viz page and
// `gmlake replay` among them. The events are those of keep_history(). docs/snapshots.md says what each field holds.
// Any thread. Throws std::bad_alloc.
FileError write_pickle_snapshot(const Allocator& allocator, const std::string& path);

// The same as JSON, with what PyTorch has no word for: every PhyBlock with each address that shows it, and statistics.
// docs/snapshot.schema.json is its schema. Any thread. Throws std::bad_alloc.
FileError write_json_snapshot(const Allocator& allocator, const std::string& path);

struct RecorderOptions {
  std::size_t events = std::size_t{1} << 16;  // of each device, kept between two visits of the thread that writes them
};

// Records what an allocator is asked for, as a .gmtrace that `gmlake replay` and its kin read: cheap enough to leave
// on.
//
// It keeps the allocator's history (keep_history() is its own while it runs) and moves it to a file beside the target,
// from a thread of its own: no allocation waits for a disk. Where that thread falls behind by more than the events
// kept, the oldest are dropped, and counted. What is live at the start begins the trace; uses of other streams are
// recorded as they were asked for, and complete at once when replayed. One thread may use a recorder at a time; the
// allocator outlives it. In the child of a fork it does nothing. One that still records when the process exits is
// stopped then, so that its file is there.
class Recorder {
 public:
  // Begins at once. An error leaves nothing behind. Throws std::bad_alloc and std::system_error (no thread to be had).
  static std::unique_ptr<Recorder> start(Allocator& allocator, const std::string& path, FileError& error,
                                         const RecorderOptions& options = {});
  ~Recorder();  // as stop()
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  // Ends the recording and writes the file. A later call says the same again.
  FileError stop();
  std::uint64_t events() const;   // written so far
  std::uint64_t dropped() const;  // and those that came faster than they could be written

 private:
  class Work;
  struct All;
  explicit Recorder(std::shared_ptr<Work> work);

  std::shared_ptr<Work> work_;
};

}  // namespace gmlake
