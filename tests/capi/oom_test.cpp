// Out-of-memory reports and callbacks through the C interface.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "capi/capi.hpp"
#include "gmlake/gmlake.h"

namespace gmlake::test {
namespace {

class CApiOom : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(gmlake_allocator_create_on("model", "limit:64MiB", &allocator_), GMLAKE_OK); }
  void TearDown() override { EXPECT_EQ(gmlake_allocator_destroy(allocator_), GMLAKE_OK); }

  gmlake_oom last() {
    gmlake_oom report{};
    report.size = sizeof report;
    report.version = GMLAKE_OOM_VERSION;
    EXPECT_EQ(gmlake_get_last_oom(allocator_, 0, &report), GMLAKE_OK);
    return report;
  }
  gmlake_status allocate(std::size_t bytes) { return gmlake_allocate(allocator_, bytes, 0, nullptr, &pointer_); }

  gmlake_allocator* allocator_ = nullptr;
  void* pointer_ = nullptr;
};

TEST_F(CApiOom, IsReported) {
  EXPECT_EQ(last().status, GMLAKE_OK);
  EXPECT_STREQ(last().text, "");
  ASSERT_EQ(allocate(40 * kMiB), GMLAKE_OK);
  ASSERT_EQ(allocate(30 * kMiB), GMLAKE_OUT_OF_MEMORY);
  const gmlake_oom report = last();
  EXPECT_EQ(report.status, GMLAKE_OUT_OF_MEMORY);
  EXPECT_EQ(report.requested_bytes, 30 * kMiB);
  EXPECT_EQ(report.limit_bytes, 64 * kMiB);
  EXPECT_EQ(report.allocated_bytes, 40 * kMiB);
  EXPECT_EQ(report.device, 0);
  EXPECT_NE(std::string(report.text).find("30.00 MiB"), std::string::npos) << report.text;
}

struct Spare {
  gmlake_allocator* allocator;
  void* pointer;
  std::uint64_t wanted = 0;
};

// It frees the block that it was given, once.
int give_up(const gmlake_oom* report, void* context) {
  auto* const spare = static_cast<Spare*>(context);
  spare->wanted = report->requested_bytes;
  if (spare->pointer == nullptr || report->size != sizeof *report || report->text[0] == 0) return 0;
  const bool freed = gmlake_deallocate(spare->allocator, spare->pointer) == GMLAKE_OK;
  spare->pointer = nullptr;
  return freed ? 1 : 0;
}

TEST_F(CApiOom, AsksItsCallbackUntilThatIsRemoved) {
  ASSERT_EQ(allocate(40 * kMiB), GMLAKE_OK);
  Spare spare{allocator_, pointer_};
  std::uint64_t id = 0;
  ASSERT_EQ(gmlake_add_release_callback(allocator_, give_up, &spare, &id), GMLAKE_OK);
  EXPECT_EQ(allocate(60 * kMiB), GMLAKE_OK) << gmlake_last_error();
  EXPECT_EQ(spare.wanted, 60 * kMiB);
  EXPECT_EQ(spare.pointer, nullptr);
  EXPECT_EQ(last().status, GMLAKE_OK) << "it was met";
  EXPECT_EQ(allocate(30 * kMiB), GMLAKE_OUT_OF_MEMORY) << "there is nothing more to free";
  EXPECT_EQ(gmlake_remove_callback(allocator_, id), GMLAKE_OK);
  spare.wanted = 0;
  EXPECT_EQ(allocate(30 * kMiB), GMLAKE_OUT_OF_MEMORY);
  EXPECT_EQ(spare.wanted, 0u);
  EXPECT_EQ(gmlake_remove_callback(allocator_, id), GMLAKE_INVALID_VALUE);
}

void note(const gmlake_oom* report, void* context) {
  static_cast<std::vector<std::uint64_t>*>(context)->push_back(report->requested_bytes);
}

TEST_F(CApiOom, TellsItsObservers) {
  std::vector<std::uint64_t> seen;
  std::uint64_t id = 0;
  ASSERT_EQ(gmlake_add_oom_observer(allocator_, note, &seen, &id), GMLAKE_OK);
  EXPECT_EQ(allocate(65 * kMiB), GMLAKE_OUT_OF_MEMORY);
  EXPECT_EQ(allocate(66 * kMiB), GMLAKE_OUT_OF_MEMORY);
  EXPECT_EQ(seen, (std::vector<std::uint64_t>{65 * kMiB, 66 * kMiB}));
  EXPECT_EQ(gmlake_remove_callback(allocator_, id), GMLAKE_OK);
}

TEST_F(CApiOom, RefusesArgumentsThatMakeNoSense) {
  std::uint64_t id = 7;
  EXPECT_EQ(gmlake_add_release_callback(allocator_, nullptr, nullptr, &id), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_add_release_callback(allocator_, give_up, nullptr, nullptr), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_add_release_callback(nullptr, give_up, nullptr, &id), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_add_oom_observer(allocator_, nullptr, nullptr, &id), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_add_oom_observer(allocator_, note, nullptr, nullptr), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_add_oom_observer(nullptr, note, nullptr, &id), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(id, 7u);
  for (const std::uint64_t wrong : {std::uint64_t{0}, std::uint64_t{1}, ~std::uint64_t{0}}) {
    EXPECT_EQ(gmlake_remove_callback(allocator_, wrong), GMLAKE_INVALID_VALUE);
    EXPECT_EQ(gmlake_remove_callback(nullptr, wrong), GMLAKE_INVALID_VALUE);
  }
  gmlake_oom report{};
  EXPECT_EQ(gmlake_get_last_oom(allocator_, 0, &report), GMLAKE_INVALID_VALUE) << "no size";
  EXPECT_EQ(gmlake_get_last_oom(allocator_, 0, nullptr), GMLAKE_INVALID_VALUE);
  report.size = sizeof report;
  report.version = GMLAKE_OOM_VERSION;
  EXPECT_EQ(gmlake_get_last_oom(nullptr, 0, &report), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_get_last_oom(allocator_, 1, &report), GMLAKE_INVALID_DEVICE);
  report.size = offsetof(gmlake_oom, stream);  // of a caller that knows no more
  report.requested_bytes = 77;
  EXPECT_EQ(gmlake_get_last_oom(allocator_, 0, &report), GMLAKE_OK);
  EXPECT_EQ(report.requested_bytes, 77u);
}

}  // namespace
}  // namespace gmlake::test
