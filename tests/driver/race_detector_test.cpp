// The race detector: what orders two touches of one page, and what does not. On the host driver, where two addresses of
// a page are really that.
#include "support/race_detector.hpp"

#include <gtest/gtest.h>

#include <memory>

#include "driver/host.hpp"

namespace gmlake::test {
namespace {

using driver::Address;
using driver::Event;
using driver::Handle;
using driver::Stream;

constexpr std::uint64_t kGranule = std::uint64_t{64} << 10;

class RaceDetection : public testing::Test {
 protected:
  RaceDetection() : host_(make()), detector_(*host_) {
    page_ = detector_.create(kGranule, {}).value();
    one_ = detector_.reserve(kGranule, 0).value();
    two_ = detector_.reserve(kGranule, 0).value();
    for (const Address address : {one_, two_}) {
      EXPECT_TRUE(detector_.map(address, kGranule, page_).ok());
      EXPECT_TRUE(detector_.set_access(address, kGranule, kDevices).ok());
    }
    event_ = detector_.event_create(0).value();
  }

  void kernel(Stream stream, Address address, std::uint64_t bytes, bool write) {
    const std::vector<driver::Access> accesses = {{address, bytes, write}};
    detector_.kernel(stream, accesses);
    EXPECT_TRUE(host_->launch(stream, accesses).ok());
  }
  void write(Stream stream, Address address, std::uint64_t bytes = kGranule) { kernel(stream, address, bytes, true); }
  void read(Stream stream, Address address, std::uint64_t bytes = kGranule) { kernel(stream, address, bytes, false); }
  void record(Stream stream) { EXPECT_TRUE(detector_.event_record(event_, stream).ok()); }
  void wait(Stream stream) { EXPECT_TRUE(detector_.stream_wait(stream, event_).ok()); }

  static constexpr int kDevices[] = {0};
  static constexpr Stream a{0, 11}, b{0, 12}, c{0, 13};
  std::unique_ptr<driver::HostDriver> host_;
  RaceDetector detector_;
  Handle page_{};
  Address one_ = 0, two_ = 0;  // both show the page
  Event event_{};

 private:
  static std::unique_ptr<driver::HostDriver> make() {
    driver::HostOptions options;
    options.granularity = kGranule;
    return std::move(driver::HostDriver::make(options)).value();
  }
};

TEST_F(RaceDetection, FindsWritesThroughTwoAddressesOfOnePage) {
  write(a, one_);
  write(b, two_);
  ASSERT_EQ(detector_.race_count(), 1u);
  const Race& race = detector_.races().front();
  EXPECT_EQ(race.first.stream, a);
  EXPECT_EQ(race.first.address, one_);
  EXPECT_EQ(race.first.touch, Race::Touch::write);
  EXPECT_EQ(race.second.stream, b);
  EXPECT_EQ(race.second.address, two_);
  EXPECT_EQ(race.handle, page_);
  EXPECT_EQ(race.offset, 0u);
  EXPECT_EQ(race.bytes, kGranule);
}

TEST_F(RaceDetection, NamesTheBytesThatBothTouch) {
  write(a, one_, 8192);
  read(b, two_ + 4096, 8192);
  ASSERT_EQ(detector_.race_count(), 1u);
  const Race& race = detector_.races().front();
  EXPECT_EQ(race.offset, 4096u);
  EXPECT_EQ(race.bytes, 4096u);
  EXPECT_EQ(race.first.address, one_ + 4096);
  EXPECT_EQ(race.second.address, two_ + 4096);
  EXPECT_NE(describe(race).find("4096 B at offset 4096 of handle"), std::string::npos) << describe(race);
}

TEST_F(RaceDetection, LetsReadsMeetAndBytesLieSideBySide) {
  read(a, one_);
  read(b, two_);
  EXPECT_EQ(detector_.race_count(), 0u);
  host_->streams().advance_all();
  detector_.synchronize();
  write(a, one_, 4096);
  write(b, two_ + 4096, 4096);
  EXPECT_EQ(detector_.race_count(), 0u);
}

TEST_F(RaceDetection, FindsAWriteAfterReadsOfSeveralStreams) {
  read(a, one_);
  read(b, two_);
  write(c, one_);
  EXPECT_EQ(detector_.race_count(), 2u);
}

TEST_F(RaceDetection, TakesOneStreamAsAnOrder) {
  write(a, one_);
  write(a, two_);
  read(a, one_);
  EXPECT_EQ(detector_.race_count(), 0u);
}

TEST_F(RaceDetection, IsNotFooledByWorkThatHappensToBeOver) {
  write(a, one_);
  host_->streams().advance_all();
  write(b, two_);
  EXPECT_EQ(detector_.race_count(), 1u);
}

TEST_F(RaceDetection, TakesAWaitOnTheDeviceAsAnOrderFromItsRecordOn) {
  write(a, one_, 4096);
  record(a);
  write(a, one_ + 4096, 4096);  // too late for the event
  wait(b);
  write(b, two_, 4096);
  EXPECT_EQ(detector_.race_count(), 0u);
  write(b, two_ + 4096, 4096);
  EXPECT_EQ(detector_.race_count(), 1u);
}

TEST_F(RaceDetection, TakesAWaitForTheRecordThatWasTheLastThen) {
  record(a);
  wait(b);
  write(a, one_);
  record(a);  // b does not wait for this one
  write(b, two_);
  EXPECT_EQ(detector_.race_count(), 1u);
}

TEST_F(RaceDetection, FollowsWaitsOverSeveralStreams) {
  write(a, one_);
  record(a);
  wait(b);
  record(b);
  wait(c);
  write(c, two_);
  EXPECT_EQ(detector_.race_count(), 0u);
}

TEST_F(RaceDetection, TakesAnEventSeenPassedByTheHostAsAnOrderForWhatItEnqueuesThen) {
  host_->streams().hold(a);
  write(a, one_);
  record(a);
  EXPECT_FALSE(detector_.event_query(event_).value());
  write(b, two_, 4096);
  EXPECT_EQ(detector_.race_count(), 1u);
  host_->streams().advance_all(a);
  EXPECT_TRUE(detector_.event_query(event_).value());
  write(b, two_ + 4096, 4096);
  EXPECT_EQ(detector_.race_count(), 1u);
}

TEST_F(RaceDetection, TakesASynchronizationOfTheHostAsAnOrder) {
  host_->streams().hold(a);
  write(a, one_);
  record(a);
  EXPECT_TRUE(detector_.event_synchronize(event_).ok());
  write(b, two_);
  EXPECT_EQ(detector_.race_count(), 0u);
}

TEST_F(RaceDetection, WantsTheHostToHaveSeenWorkCompleteBeforeItUnmaps) {
  write(a, one_);  // complete at once, but nobody has looked
  EXPECT_TRUE(detector_.unmap(one_, kGranule).ok());
  ASSERT_EQ(detector_.race_count(), 1u);
  EXPECT_EQ(detector_.races().front().second.touch, Race::Touch::unmap);
  read(b, two_);
  EXPECT_EQ(detector_.race_count(), 2u);  // the page was written, and is the same one still
  record(b);
  EXPECT_TRUE(detector_.event_query(event_).value());
  EXPECT_TRUE(detector_.unmap(two_, kGranule).ok());
  EXPECT_EQ(detector_.race_count(), 2u);
}

TEST_F(RaceDetection, ForgetsAPageThatIsGone) {
  write(a, one_);
  host_->streams().advance_all();
  detector_.synchronize();
  EXPECT_TRUE(detector_.unmap(one_, kGranule).ok());
  EXPECT_TRUE(detector_.unmap(two_, kGranule).ok());
  EXPECT_TRUE(detector_.release(page_).ok());
  page_ = detector_.create(kGranule, {}).value();
  EXPECT_TRUE(detector_.map(one_, kGranule, page_).ok());
  EXPECT_TRUE(detector_.set_access(one_, kGranule, kDevices).ok());
  write(b, one_);
  EXPECT_EQ(detector_.race_count(), 0u);
}

}  // namespace
}  // namespace gmlake::test
