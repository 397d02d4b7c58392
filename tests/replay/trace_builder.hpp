// Hand-made traces and a place to replay them, for the tests of the engine and of the models.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "driver/model.hpp"
#include "driver/record.hpp"
#include "replay/engine.hpp"
#include "replay/trace.hpp"

namespace gmlake::replay {

inline constexpr std::uint64_t kSideStream = 7;  // of the models: any but the default stream

// Writes a trace event by event. Stream 0 is the default stream; the others are added.
class TraceBuilder {
 public:
  std::uint16_t add_stream(std::uint64_t handle) { return add(handle, false); }
  std::uint16_t add_held_stream() { return add(1000 + trace_.streams.size(), true); }

  std::uint32_t alloc(std::uint64_t bytes, std::uint16_t stream = 0) {
    trace_.events.push_back({Op::alloc, 0, stream, trace_.block_count, bytes});
    streams_of_blocks_.push_back(stream);
    return trace_.block_count++;
  }
  void free(std::uint32_t id) { trace_.events.push_back({Op::free, 0, streams_of_blocks_[id], id, 0}); }
  void use(std::uint32_t id, std::uint16_t stream) { trace_.events.push_back({Op::record_stream, 0, stream, id, 0}); }
  void advance(std::uint16_t stream, std::uint64_t uses) { trace_.events.push_back({Op::advance, 0, stream, 0, uses}); }
  void trim() { trace_.events.push_back({Op::trim, 0, 0, 0, 0}); }

  DeviceTrace& trace() { return trace_; }

 private:
  std::uint16_t add(std::uint64_t handle, bool held) {
    trace_.streams.push_back(handle);
    trace_.held_streams.push_back(held);
    return static_cast<std::uint16_t>(trace_.streams.size() - 1);
  }

  DeviceTrace trace_;
  std::vector<std::uint16_t> streams_of_blocks_;
};

// A target on a model device. At its end nothing may be left in the driver.
class ModelRig {
 public:
  explicit ModelRig(std::string_view name, const TargetOptions& options = {}, const driver::ModelOptions& device = {})
      : model_(device), record_(model_) {
    Result<std::unique_ptr<Target>> made = make_target(name, record_, options);
    EXPECT_TRUE(made.ok()) << describe(made.error());
    if (made) target_ = std::move(*made);
  }
  ~ModelRig() { finish(); }

  // Gives the target up, and looks at the driver's books.
  void finish() {
    if (target_ == nullptr) return;
    target_.reset();
    EXPECT_EQ(model_.usage(), driver::Usage{});
    EXPECT_EQ(model_.streams().live_events(), 0u);
    EXPECT_TRUE(model_.streams().violations().empty());
  }

  ReplayReport replay(const DeviceTrace& trace, const ReplayOptions& options = {}) {
    const Result<ReplayReport> report = replay::replay(trace, *target_, record_, &model_.streams(), options);
    EXPECT_TRUE(report.ok()) << describe(report.error());
    return report ? *report : ReplayReport{};
  }

  driver::Address alloc(std::uint64_t bytes, std::uint64_t stream = 0) {
    const Result<driver::Address> address = target_->allocate(bytes, {0, stream});
    return address ? *address : 0;
  }
  void free(driver::Address address, std::uint64_t stream = 0) {
    const Status freed = target_->deallocate(address, {0, stream});
    EXPECT_TRUE(freed.ok()) << describe(freed.error());
  }
  void use(driver::Address address, std::uint64_t stream) {
    EXPECT_TRUE(target_->record_stream(address, {0, stream}).ok());
  }

  Target& target() { return *target_; }
  driver::ModelDriver& model() { return model_; }
  driver::RecordDriver& record() { return record_; }
  driver::StreamSimulator& streams() { return model_.streams(); }
  std::uint64_t reserved() const { return target_->reserved_bytes(); }

 private:
  driver::ModelDriver model_;
  driver::RecordDriver record_;
  std::unique_ptr<Target> target_;
};

}  // namespace gmlake::replay
