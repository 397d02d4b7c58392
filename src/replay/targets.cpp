// The allocators that a trace can be replayed through, by name. Callable from any thread.
#include <array>

#include "replay/direct.hpp"
#include "replay/engine.hpp"
#include "replay/gmlake_target.hpp"
#include "replay/torch_expandable.hpp"
#include "replay/torch_native.hpp"

namespace gmlake::replay {

namespace {

struct NamedTarget {
  std::string_view name;
  Result<std::unique_ptr<Target>> (*make)(driver::Driver& driver, const TargetOptions& options);
};

// In the order in which tables list them.
constexpr std::array kTargets = {
    NamedTarget{"gmlake", &GmlakeTarget::make},
    NamedTarget{"torch-native", &TorchNative::make},
    NamedTarget{"torch-expandable", &TorchExpandable::make},
    NamedTarget{"direct", &Direct::make},
};

}  // namespace

Result<std::unique_ptr<Target>> make_target(std::string_view name, driver::Driver& driver,
                                            const TargetOptions& options) {
  for (const NamedTarget& entry : kTargets) {
    if (entry.name == name) return entry.make(driver, options);
  }
  return Error{ErrorCode::invalid_option, Step::options, 0};
}

std::vector<std::string_view> target_names() {
  std::vector<std::string_view> names;
  names.reserve(kTargets.size());
  for (const NamedTarget& entry : kTargets) names.push_back(entry.name);
  return names;
}

}  // namespace gmlake::replay
