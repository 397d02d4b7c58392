// gmlake info: which drivers and devices there are, what they can do, and what is missing.
#include <fmt/format.h>

#include <fstream>

#include "../arguments.hpp"
#include "../drivers.hpp"
#include "../json.hpp"
#include "../output.hpp"
#include "commands.hpp"
#include "driver/model.hpp"
#include "gmlake/bytes.hpp"

namespace gmlake::cli {
namespace {

struct DeviceInfo {
  int device = 0;
  driver::DeviceProperties properties;
  std::uint64_t free_bytes = 0;
  std::uint64_t granularity_bytes = 0;
};

struct DriverInfo {
  std::string name;
  std::vector<DeviceInfo> devices;
  std::string missing;  // why it cannot be used; empty where it can
};

DeviceInfo look_at_device(driver::Driver& driver, int device) {
  const auto check = [](const auto& result) {
    if (!result) throw CommandError(describe(result.error()));
    return *result;
  };
  DeviceInfo info{device, check(driver.device_properties(device)), check(driver.memory_info(device)).free_bytes, 0};
  driver::MemoryProperties memory;
  memory.location.id = device;
  if (info.properties.vmm_supported) info.granularity_bytes = check(driver.granularity(memory));
  return info;
}

DriverInfo look_at(const std::string& name) {
  DriverInfo info{name, {}, {}};
  try {
    const Backend backend = make_driver(name, {});
    const auto count = backend.driver->device_count();
    if (!count) throw CommandError(describe(count.error()));
    for (int device = 0; device < *count; ++device) info.devices.push_back(look_at_device(*backend.driver, device));
    if (*count == 0) info.missing = "no device";
  } catch (const CommandError& error) {
    info.missing = error.what();
  }
  return info;
}

// The kernel's limit on mappings of one process, which bounds the host driver; 0 where unknown.
std::uint64_t max_map_count() {
  std::ifstream file("/proc/sys/vm/max_map_count");
  std::uint64_t count = 0;
  return file >> count ? count : 0;
}

// What bounds a driver beside its memory, one line each.
std::vector<std::string> limits_of(const std::string& driver) {
  std::vector<std::string> limits;
  if (driver == "model") {
    const driver::ModelOptions model;
    limits.push_back(fmt::format("at most {} mappings, {} of addresses, {} in one reservation", model.max_mappings,
                                 format_bytes(model.max_address_bytes), format_bytes(model.max_reservation_bytes)));
    limits.emplace_back("a simulation: books and the costs measured on an H200, no memory");
  } else if (driver == "host") {
    if (const std::uint64_t count = max_map_count(); count > 0)
      limits.push_back(fmt::format("the kernel allows {} mappings a process (vm.max_map_count)", count));
    limits.emplace_back("a simulation: its size is a number, and pages that are touched are memory of this machine");
  }
  return limits;
}

std::string abilities(const driver::DeviceProperties& properties) {
  std::string text = properties.vmm_supported ? "virtual memory management" : "NO virtual memory management";
  if (properties.rdma_supported) text += ", RDMA";
  if (properties.posix_fd_supported) text += ", POSIX file descriptors";
  if (properties.fabric_supported) text += ", fabric handles";
  if (properties.host_numa_supported) text += fmt::format(", host memory (node {})", properties.host_numa_node);
  return text;
}

std::string text_of(const DriverInfo& info) {
  if (!info.missing.empty()) return fmt::format("{:<6} not usable: {}\n", info.name, info.missing);
  std::string text;
  for (const auto& device : info.devices) {
    text += fmt::format("{:<6} device {}: {}\n", info.name, device.device, device.properties.name);
    text += fmt::format("       {} of memory, {} free, granularity {}\n", format_bytes(device.properties.total_bytes),
                        format_bytes(device.free_bytes), format_bytes(device.granularity_bytes));
    text += fmt::format("       {}\n", abilities(device.properties));
  }
  for (const std::string& limit : limits_of(info.name)) text += fmt::format("       {}\n", limit);
  return text;
}

Json json_of(const DriverInfo& info) {
  Json devices = Json::array();
  for (const auto& device : info.devices) {
    const auto& properties = device.properties;
    devices.push_back(Json{{"device", device.device},
                           {"name", properties.name},
                           {"total_bytes", properties.total_bytes},
                           {"free_bytes", device.free_bytes},
                           {"granularity_bytes", device.granularity_bytes},
                           {"vmm", properties.vmm_supported},
                           {"rdma", properties.rdma_supported},
                           {"posix_fd", properties.posix_fd_supported},
                           {"fabric", properties.fabric_supported},
                           {"host_numa", properties.host_numa_supported}});
  }
  return Json{{"driver", info.name},
              {"usable", info.missing.empty()},
              {"missing", info.missing},
              {"limits", limits_of(info.name)},
              {"devices", devices}};
}

ExitCode show_info(const std::string& json) {
  std::string text = "gmlake " GMLAKE_VERSION "\n\n";
  Json results = Json::array();
  for (const auto& name : driver_names()) {
    const DriverInfo info = look_at(name);
    text += text_of(info);
    results.push_back(json_of(info));
  }
  if (json.empty() || !is_stdout(json)) write_stdout(text);
  if (!json.empty()) write_results(json, "info", std::move(results));
  return ExitCode::done;
}

}  // namespace

void add_info(CLI::App& app, ExitCode& exit) {
  auto* command =
      app.add_subcommand("info", "Show the drivers and devices there are, their limits, and what is missing");
  auto json = std::make_shared<std::string>();
  add_json(*command, *json);
  command->callback([json, &exit] { exit = show_info(*json); });
}

}  // namespace gmlake::cli
