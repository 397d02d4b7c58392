// Any text as GMLAKE_CONF. Whatever it is, the options are ones that an allocator takes; a setting that is refused
// changes nothing and is named; settings do not depend on those around them, but the last of one key holds; and what is
// written out is read back the same.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.hpp"
#include "driver/model.hpp"
#include "gmlake/allocator.hpp"

namespace {

using namespace gmlake;  // NOLINT

std::string written(const Options& options) {
  std::string text;
  for (const OptionInfo& option : option_table()) {
    if (!text.empty()) text += ',';
    text += std::string(option.key) + ":" + option_value(options, option.key);
  }
  return text;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  Options options;
  const OptionsError error = parse_options(text, options);

  Options one_by_one;
  bool refused = false;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string before = written(one_by_one);
    const OptionsError one = parse_options(std::string_view(text).substr(begin, end - begin), one_by_one);
    GMLAKE_CHECK(one.ok() || written(one_by_one) == before);
    GMLAKE_CHECK(one.ok() || error.message.find(one.message) != std::string::npos);
    refused = refused || !one.ok();
    begin = end + 1;
  }
  GMLAKE_CHECK(refused == !error.ok());
  const std::string known = written(options);
  GMLAKE_CHECK(written(one_by_one) == known);

  Options again;
  GMLAKE_CHECK(parse_options(known, again).ok() && written(again) == known);

  static driver::ModelDriver driver;
  options.background_worker = false;  // a thread for each input would be slow, and is not what is asked here
  const auto made = Allocator::create(driver, options);
  GMLAKE_CHECK(made.ok());
  const Result<void*> pointer = (*made)->try_allocate(1000);
  if (pointer.ok()) {
    GMLAKE_CHECK((*made)->try_deallocate(*pointer).ok());
  } else {
    GMLAKE_CHECK(pointer.error().code == ErrorCode::out_of_memory);  // a limit of less than that
  }
  return 0;
}
