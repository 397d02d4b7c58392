// The settings: every key, its range, and what is said where one is refused.
#include "gmlake/options.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <set>
#include <string>
#include <vector>

namespace gmlake {
namespace {

using testing::HasSubstr;

struct Values {
  const char* key;
  std::vector<const char*> good;
  std::vector<const char*> bad;
};

const std::vector<Values> kValues = {
    {"driver", {"cuda", "host", "model"}, {"", "gpu", "CUDA", "host model"}},
    {"limit", {"0", "1", "24GiB", "512 MiB", "1.5g"}, {"", "-1", "lots", "24 GiBs", "99999999999TiB"}},
    {"per_process_memory_fraction", {"0", "0.5", "1"}, {"", "-0.1", "1.1", "nan", "inf", "half", "0.5x"}},
    {"slack", {"0", "0.004", "1"}, {"", "-1", "2", "nan", "a lot"}},
    {"max_phy_block", {"64KiB", "2MiB", "1GiB", "65536"}, {"", "0", "32KiB", "3MiB", "2GiB", "one"}},
    {"max_mappings", {"1024", "400000", "100000000"}, {"", "1023", "100000001", "1e6", "-1", "99999999999999999999"}},
    {"max_stale", {"0", "1", "64"}, {"", "-0.5", "64.5", "nan"}},
    {"max_address_space", {"1", "8", "1024"}, {"", "0.5", "1025", "nan"}},
    {"garbage_collection_threshold", {"0", "0.8", "1"}, {"", "-0.1", "1.1", "nan", "on"}},
    {"spill", {"no", "peers", "host", "peers+host"}, {"", "yes", "host+peers", "disk"}},
    {"background_worker", {"true", "false", "1", "0"}, {"", "yes", "thread"}},
    {"record", {"", "job.gmtrace", "/tmp/a b/%p:1.gmtrace"}, {"a,b"}},
    {"zero_on_free", {"true", "false", "1", "0"}, {"", "yes", "zeros"}},
    {"unmap_on_free", {"true", "false", "1", "0"}, {"", "yes", "wait"}},
    {"stream_wait", {"true", "false", "True", "False", "1", "0", "limit"}, {"", "yes", "TRUE", "2", "Limit", "limits"}},
};

TEST(Options, TableNamesEveryKeyOnceWithRangeAndMeaning) {
  std::set<std::string_view> keys;
  for (const OptionInfo& info : option_table()) {
    EXPECT_TRUE(keys.insert(info.key).second) << info.key;
    EXPECT_FALSE(info.range.empty());
    EXPECT_FALSE(info.meaning.empty());
    EXPECT_EQ(info.meaning.back(), '.');
  }
  std::set<std::string_view> tested;
  for (const Values& values : kValues) tested.insert(values.key);
  EXPECT_EQ(keys, tested);
}

TEST(Options, EachKeyTakesItsRangeAndReadsBackWhatItWrites) {
  for (const Values& values : kValues) {
    for (const char* value : values.good) {
      Options options;
      EXPECT_TRUE(apply_option(options, values.key, value).ok()) << values.key << ":" << value;
      const std::string written = option_value(options, values.key);
      Options again;
      EXPECT_TRUE(apply_option(again, values.key, written).ok()) << values.key << ":" << written;
      EXPECT_EQ(option_value(again, values.key), written);
    }
  }
}

TEST(Options, EachKeyRefusesWhatIsOutsideItsRangeAndKeepsItsValue) {
  for (const Values& values : kValues) {
    for (const char* value : values.bad) {
      Options options;
      const Status applied = apply_option(options, values.key, value);
      ASSERT_FALSE(applied.ok()) << values.key << ":" << value;
      EXPECT_EQ(applied.error().code, ErrorCode::invalid_option);
      EXPECT_EQ(applied.error().step, Step::options);
      for (const OptionInfo& info : option_table()) {
        EXPECT_EQ(option_value(options, info.key), option_value({}, info.key)) << values.key << ":" << value;
      }
    }
  }
}

TEST(Options, DefaultsLieInTheirRanges) {
  for (const OptionInfo& info : option_table()) {
    Options options;
    EXPECT_TRUE(apply_option(options, info.key, option_value({}, info.key)).ok()) << info.key;
  }
}

TEST(Options, ReadASettingOfManyKeys) {
  Options options;
  const OptionsError error = parse_options(" limit: 1GiB ,slack:0.5,,stream_wait:false, ", options);
  EXPECT_TRUE(error.ok()) << error.message;
  EXPECT_EQ(options.limit_bytes, std::uint64_t{1} << 30);
  EXPECT_EQ(options.slack, 0.5);
  EXPECT_EQ(options.stream_wait, StreamWait::never);
  EXPECT_TRUE(parse_options("", options).ok());
}

TEST(Options, NameEachRefusedSettingWithItsRangeAndTakeTheOthers) {
  Options options;
  const OptionsError error = parse_options("limt:1GiB,slack:3,max_stale:2,stream_wait", options);
  EXPECT_FALSE(error.ok());
  EXPECT_THAT(error.message, HasSubstr("unknown key 'limt'"));
  EXPECT_THAT(error.message, HasSubstr("slack: '3' is not a number from 0 to 1"));
  EXPECT_THAT(error.message, HasSubstr("stream_wait: '' is not true, limit or false"));
  EXPECT_EQ(options.max_stale, 2);
  EXPECT_EQ(options.slack, Options{}.slack);
  EXPECT_EQ(options.stream_wait, StreamWait::before_growth);
  EXPECT_EQ(option_value(options, "limt"), "");
}

TEST(Options, HoldAgainstTextThatIsNoSetting) {
  for (const char* text : {":", ",", ":,:", "limit", "limit:", ":1", "a:b:c", "limit:1:2", "\n", "\xff\xfe:\x01"}) {
    Options options;
    (void)parse_options(text, options).ok();
    EXPECT_EQ(options.limit_bytes, 0u) << text;
  }
}

TEST(Options, ComeFromTheEnvironment) {
  const char* set = getenv("GMLAKE_CONF");
  const std::string before = set == nullptr ? "" : set;
  Options options;
  unsetenv("GMLAKE_CONF");
  EXPECT_TRUE(options_from_environment(options).ok());
  setenv("GMLAKE_CONF", "limit:2MiB,slack:9", 1);
  const OptionsError error = options_from_environment(options);
  setenv("GMLAKE_CONF", before.c_str(), 1);
  EXPECT_THAT(error.message, HasSubstr("slack"));
  EXPECT_EQ(options.limit_bytes, std::uint64_t{2} << 20);
}

}  // namespace
}  // namespace gmlake
