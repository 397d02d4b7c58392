#include "replay/read_trace.hpp"

#include <array>

#include "replay/byte_source.hpp"
#include "replay/input_file.hpp"
#include "replay/rmm_csv.hpp"
#include "replay/snapshot_reader.hpp"
#include "replay/trace_file.hpp"

namespace gmlake::replay {
namespace {

// "cos\nsystem\n": a pickle that begins by importing something. It is recognized to be refused by the opcode's name.
bool begins_with_import(std::string_view bytes) {
  if (!bytes.starts_with('c')) return false;
  constexpr std::string_view kName = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.";
  const std::size_t module_end = bytes.find_first_not_of(kName);
  if (module_end == std::string_view::npos || bytes[module_end] != '\n') return false;
  const std::size_t name_end = bytes.find_first_not_of(kName, module_end + 1);
  return name_end != std::string_view::npos && name_end > module_end + 1 && bytes[name_end] == '\n';
}

// Pickles from protocol 2 on begin with PROTO; older ones of a dict or a list with its opcodes.
bool is_pickle(std::string_view bytes) {
  return bytes.starts_with('\x80') || bytes.starts_with("(d") || bytes.starts_with("(l") || bytes.starts_with("}q") ||
         bytes.starts_with("]q") || begins_with_import(bytes);
}

bool is_rmm_csv(std::string_view bytes) {
  if (bytes.starts_with("\xef\xbb\xbf")) bytes.remove_prefix(3);  // a byte order mark
  return bytes.starts_with("Thread,");
}

InputResult<Trace> read_any(ByteSource& source) {
  constexpr std::size_t kLongestMagic = 64;
  (void)source.fill(kLongestMagic);
  if (source.damage()) return *source.damage();
  const std::string_view start(source.at(), static_cast<std::size_t>(source.end() - source.at()));
  if (start.empty()) return InputError{source.file(), InputPlace::whole_file, 0, "is empty"};
  if (start.starts_with(kTraceFileMagic)) return read_trace_file(source);
  if (is_rmm_csv(start)) return read_rmm_csv(source);
  if (is_pickle(start)) return read_snapshot(source);
  return InputError{source.file(), InputPlace::whole_file, 0,
                    "is no trace: neither a PyTorch memory snapshot (pickle), nor an RMM log (CSV), nor a .gmtrace"};
}

}  // namespace

InputResult<Trace> read_trace_from(std::string_view bytes, const std::string& file) {
  ByteSource source(bytes, file);
  auto trace = read_any(source);
  if (!trace) return trace;
  for (const DeviceTrace& device : trace->devices) {
    if (const auto reason = validate(device)) {
      return InputError{file, InputPlace::whole_file, 0, "device " + std::to_string(device.device) + ": " + *reason};
    }
  }
  return trace;
}

InputResult<Trace> read_trace(const std::string& path) {
  auto bytes = read_input(path);
  if (!bytes) return std::move(bytes).error();
  const bool is_standard_input = path == "-";
  auto trace = read_trace_from(bytes->view(), is_standard_input ? "standard input" : path);
  // A .gmtrace knows a name of its own, which stands where there is no file's.
  if (trace && (!is_standard_input || trace->name.empty()))
    trace->name = is_standard_input ? "stdin" : trace_name(path);
  return trace;
}

std::string trace_name(std::string_view path) {
  if (const auto slash = path.rfind('/'); slash != std::string_view::npos) path.remove_prefix(slash + 1);
  constexpr std::array<std::string_view, 5> kEndings{".gz", ".pickle", ".pkl", ".csv", ".gmtrace"};
  for (bool found = true; found;) {
    found = false;
    for (const std::string_view ending : kEndings) {
      if (path.size() > ending.size() && path.ends_with(ending)) {
        path.remove_suffix(ending.size());
        found = true;
      }
    }
  }
  return std::string(path);
}

}  // namespace gmlake::replay
