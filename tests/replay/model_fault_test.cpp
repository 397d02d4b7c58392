// The models under failing driver calls: every call of a scenario fails once, and from then on. A replay ends or says
// what failed, the books hold, and where no call that gives back failed, everything is given back.
#include <gtest/gtest.h>

#include "driver/fault.hpp"
#include "gmlake/bytes.hpp"
#include "replay/torch_expandable.hpp"
#include "replay/torch_native.hpp"
#include "replay/trace_builder.hpp"

namespace gmlake::replay {
namespace {

using namespace gmlake::literals;

DeviceTrace scenario() {
  TraceBuilder t;
  const auto held = t.add_held_stream();
  const auto side = t.add_stream(7);
  const auto a = t.alloc(30_MiB);
  const auto pin = t.alloc(4_MiB);
  const auto b = t.alloc(26_MiB);
  t.use(b, held);
  t.use(b, side);
  t.free(b);
  t.free(a);
  t.alloc(512);
  t.alloc(40_MiB, side);  // past the limit: reclaims
  t.advance(held, 1);
  t.trim();
  t.free(pin);
  t.alloc(12_MiB);
  t.trim();
  return t.trace();
}

void check_books(Target& target) {
  if (auto* native = dynamic_cast<TorchNative*>(&target)) native->check();
  if (auto* expandable = dynamic_cast<TorchExpandable*>(&target)) expandable->check();
}

class ModelUnderFaults : public testing::TestWithParam<const char*> {
 protected:
  // True where the fault hit a call.
  bool run(const driver::Fault& fault) {
    driver::ModelDriver model;
    driver::FaultDriver faulty(model);
    driver::RecordDriver record(faulty);
    TargetOptions options;
    options.capacity_bytes = 84_MiB;
    auto target = make_target(GetParam(), record, options);
    EXPECT_TRUE(target.ok());
    faulty.arm(fault);
    static_cast<void>(replay(trace_, **target, record, &model.streams(), {}).ok());
    const bool hit = faulty.reached();
    faulty.heal();
    check_books(**target);
    EXPECT_TRUE(replay(trace_, **target, record, &model.streams(), {}).ok());
    check_books(**target);
    (*target).reset();
    const bool gives_back = *fault.kind == Step::unmap || *fault.kind == Step::release ||
                            *fault.kind == Step::address_free || *fault.kind == Step::event_destroy;
    if (!gives_back) {
      EXPECT_EQ(model.usage(), driver::Usage{});
      EXPECT_EQ(model.streams().live_events(), 0u);
    }
    EXPECT_TRUE(model.streams().violations().empty());
    model.check();
    return hit;
  }

  DeviceTrace trace_ = scenario();
};

TEST_P(ModelUnderFaults, EndsCleanlyWhicheverCallFails) {
  const Step kinds[] = {Step::reserve,      Step::create,      Step::map,          Step::set_access,
                        Step::event_create, Step::event_query, Step::event_record, Step::event_synchronize,
                        Step::unmap,        Step::release,     Step::address_free, Step::event_destroy};
  std::uint64_t hits = 0;
  for (const Step kind : kinds) {
    for (const bool sticky : {false, true}) {
      for (const ErrorCode code : {ErrorCode::out_of_memory, ErrorCode::unknown}) {
        driver::Fault fault;
        fault.kind = kind;
        fault.sticky = sticky;
        fault.code = code;
        for (fault.nth = 1; run(fault); ++fault.nth) ++hits;
      }
    }
  }
  EXPECT_GT(hits, 100u);
}

INSTANTIATE_TEST_SUITE_P(Models, ModelUnderFaults, testing::Values("torch-native", "torch-expandable", "direct"),
                         [](const auto& row) {
                           std::string name = row.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace gmlake::replay
