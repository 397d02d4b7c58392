#include "measure.hpp"

#include <fmt/format.h>

#include "drivers.hpp"
#include "error.hpp"
#include "gmlake/bytes.hpp"

namespace gmlake::cli {
namespace {

// 1234567 as "1,234,567".
std::string grouped(std::uint64_t number) {
  std::string text = std::to_string(number);
  for (auto at = static_cast<std::ptrdiff_t>(text.size()) - 3; at > 0; at -= 3)
    text.insert(static_cast<std::size_t>(at), ",");
  return text;
}

}  // namespace

std::string setting_message(const std::string& allocator, const Error& error, const replay::Settings& settings) {
  std::string text = allocator + ": " + describe(error);
  if (error.code != ErrorCode::invalid_option || settings.empty()) return text;
  text += "; the settings were";
  for (const auto& [key, value] : settings) text += fmt::format(" {}={}", key, value);
  return text;
}

std::uint64_t device_capacity(const ReplayArguments& arguments) {
  if (arguments.capacity_bytes != 0) return arguments.capacity_bytes;
  const Backend backend = make_driver(arguments.driver, {});
  const auto properties = backend.driver->device_properties(0);
  if (!properties) throw CommandError(arguments.driver + " driver: " + describe(properties.error()));
  return properties->total_bytes;
}

Measurement measure(const replay::Trace& trace, const replay::DeviceTrace& events, const std::string& allocator,
                    const ReplayArguments& arguments, const replay::Settings& settings, replay::ReplayOptions options,
                    Progress& progress) {
  const std::string label = trace.name + " " + allocator;
  progress.begin(label);
  options.progress = [&progress](std::uint64_t done, std::uint64_t total) { progress.update(done, total); };

  Backend backend = make_driver(arguments.driver, {.device_count = 1, .capacity_bytes = arguments.capacity_bytes});
  if (backend.make_stream) {
    for (std::size_t i = 0; i < events.streams.size(); ++i) {
      const auto stream = backend.make_stream();
      if (!stream) throw CommandError(arguments.driver + " driver: " + describe(stream.error()));
      options.stream_handles.push_back(stream->handle);
    }
  }
  driver::RecordDriver record(*backend.driver);
  replay::TargetOptions target_options;
  target_options.capacity_bytes = arguments.capacity_bytes;
  target_options.settings = settings;
  target_options.recorded_segments = &events;
  auto target = replay::make_target(allocator, record, target_options);
  if (!target) throw CommandError(setting_message(allocator, target.error(), settings));
  auto report = replay::replay(events, **target, record, backend.streams, options);
  if (!report) throw CommandError(fmt::format("{}: {}", label, describe(report.error())));
  return {trace.name, std::string(backend.driver->name()), allocator, events.device, *report};
}

double reserved_over_allocated(const replay::ReplayReport& report) {
  if (report.peak_allocated_bytes == 0) return 0;
  return static_cast<double>(report.peak_reserved_bytes) / static_cast<double>(report.peak_allocated_bytes);
}

Json to_json(const Measurement& measurement) {
  const auto& report = measurement.report;
  Json json{{"trace", measurement.trace},
            {"allocator", measurement.allocator},
            {"driver", measurement.driver},
            {"device", measurement.device},
            {"events", report.events},
            {"peak_allocated_bytes", report.peak_allocated_bytes},
            {"peak_requested_bytes", report.peak_requested_bytes},
            {"peak_reserved_bytes", report.peak_reserved_bytes},
            {"reserved_over_allocated", reserved_over_allocated(report)},
            {"driver_calls", to_json(report.driver_calls)},
            {"handles_mapped_second_half", report.handles_mapped_second_half},
            {"driver_seconds", report.driver_seconds},
            {"background_driver_seconds", report.background_driver_seconds},
            {"host_ns_per_event", report.host_ns_per_event},
            {"ooms", report.ooms},
            {"verified_bytes", report.verified_bytes},
            {"wrong_bytes", report.wrong_bytes}};
  if (report.pinned_bytes_at_peak) json["pinned_bytes_at_peak"] = *report.pinned_bytes_at_peak;
  return json;
}

Table make_replay_table() {
  return Table({"allocator", "peak allocated", "peak reserved", "ratio", "reserve", "create", "map", "set_access",
                "unmap", "release", "addr_free", "driver s", "ns/event", "OOM"});
}

void add_line(Table& table, const Measurement& measurement) {
  const auto& report = measurement.report;
  const auto& calls = report.driver_calls;
  table.add({measurement.allocator, format_bytes(report.peak_allocated_bytes), format_bytes(report.peak_reserved_bytes),
             fmt::format("{:.4f}", reserved_over_allocated(report)), grouped(calls.reserve), grouped(calls.create),
             grouped(calls.map), grouped(calls.set_access), grouped(calls.unmap), grouped(calls.release),
             grouped(calls.address_free), fmt::format("{:.3f}", report.driver_seconds),
             report.host_ns_per_event > 0 ? fmt::format("{:.0f}", report.host_ns_per_event) : "-",
             grouped(report.ooms)});
}

std::string heading(const replay::Trace& trace, const replay::DeviceTrace& events, const ReplayArguments& arguments) {
  const std::string limit =
      arguments.capacity_bytes == 0 ? "" : ", at most " + format_bytes(arguments.capacity_bytes) + " reserved";
  return fmt::format("{}, device {}: {} events, {} driver{}\n", trace.name, events.device,
                     grouped(events.events.size()), arguments.driver, limit);
}

}  // namespace gmlake::cli
