// The baseline without a cache, and the registry of targets.
#include "replay/direct.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gmlake/bytes.hpp"
#include "replay/trace_builder.hpp"

namespace gmlake::replay {
namespace {

using namespace gmlake::literals;

TEST(Direct, MakesFourCallsForABlockAndThreeToFreeIt) {
  ModelRig rig("direct");
  const driver::Address block = rig.alloc(2_MiB + 1);
  EXPECT_EQ(rig.reserved(), 4_MiB);
  EXPECT_EQ(rig.record().counts().total(), 4u);
  rig.free(block);
  EXPECT_EQ(rig.reserved(), 0u);
  EXPECT_EQ(rig.record().counts().total(), 7u);
  EXPECT_EQ(rig.model().usage(), driver::Usage{});
}

TEST(Direct, KeepsABlockUntilTheOtherStreamIsDone) {
  ModelRig rig("direct");
  rig.streams().hold({0, 7});
  const driver::Address block = rig.alloc(2_MiB);
  rig.use(block, 7);
  rig.free(block);
  EXPECT_EQ(rig.reserved(), 2_MiB);
  rig.streams().advance({0, 7}, 1);
  rig.alloc(2_MiB);
  EXPECT_EQ(rig.reserved(), 2_MiB);
}

TEST(Direct, WaitsForPendingBlocksAtTheLimit) {
  TargetOptions options;
  options.capacity_bytes = 4_MiB;
  ModelRig rig("direct", options);
  rig.streams().hold({0, 7});
  const driver::Address block = rig.alloc(4_MiB);
  rig.use(block, 7);
  rig.free(block);
  EXPECT_NE(rig.alloc(4_MiB), 0u);
  EXPECT_EQ(rig.streams().synchronizations(), 1u);
  EXPECT_EQ(rig.alloc(1), 0u);
}

TEST(Direct, RefusesForeignPointersAndSettings) {
  ModelRig rig("direct");
  const driver::Address block = rig.alloc(0);
  EXPECT_EQ(rig.target().deallocate(block + 512, {}).error().code, ErrorCode::invalid_pointer);
  EXPECT_EQ(rig.target().record_stream(block + 512, {}).error().code, ErrorCode::invalid_pointer);
  rig.free(block);
  EXPECT_EQ(rig.target().deallocate(block, {}).error().code, ErrorCode::invalid_pointer);
  EXPECT_EQ(rig.target().allocate(~std::uint64_t{0}, {}).error().code, ErrorCode::invalid_size);
  TargetOptions options;
  options.settings["x"] = "1";
  EXPECT_EQ(make_target("direct", rig.record(), options).error().code, ErrorCode::invalid_option);
}

TEST(Targets, AreMadeByTheNamesThatAreListed) {
  driver::ModelDriver model;
  EXPECT_THAT(target_names(), testing::IsSupersetOf({"torch-native", "torch-expandable", "direct"}));
  for (const std::string_view name : target_names()) {
    const auto made = make_target(name, model, {});
    ASSERT_TRUE(made.ok()) << name;
    EXPECT_EQ((*made)->name(), name);
  }
  EXPECT_EQ(make_target("torch", model, {}).error().code, ErrorCode::invalid_option);
  TargetOptions elsewhere;
  elsewhere.device = 5;
  for (const std::string_view name : target_names()) {
    EXPECT_EQ(make_target(name, model, elsewhere).error().code, ErrorCode::invalid_device) << name;
  }
}

}  // namespace
}  // namespace gmlake::replay
