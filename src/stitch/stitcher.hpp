// Carries out a plan: claim, then the driver's calls, then publish; and undoes all of it when a call fails.
//
// The three steps are apart because they want different locks. claim() and publish() change books alone and want
// `state` and `grow`; execute() makes the driver calls and wants `grow` alone, so that hits on other threads go on
// meanwhile. What touches many runs takes `state` in short steps (stitch/survey.hpp): each range is claimed for itself.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "memory/mapping_table.hpp"
#include "stitch/plan.hpp"

namespace gmlake::stitch {

class Stitcher {
 public:
  Stitcher(memory::MappingTable& mappings, memory::PhyPool& phy_pool, memory::Fences& fences)
      : mappings_(mappings), phy_pool_(phy_pool), fences_(fences) {}

  // Takes the window and every donor out of the books, and sets aside the host memory that publish() may need. False:
  // what the plan counts on as free is so no more, and nothing has changed. Throws std::bad_alloc with nothing changed.
  bool claim(const Plan& plan, StateSteps& steps);

  // Retires, creates, maps and grants access. On an error the mappings made are gone again, and the window and the
  // donors are as they were; blocks that were created stay, spare. The error is the first refusal.
  Status execute(const Plan& plan);

  // Puts the donors back into the books as they are now: holes, or what they were where execute() failed.
  void publish_donors(StateSteps& steps);
  // And the window. Returns the free run that begins it, or null where execute() failed. `tick`: the clock of the
  // window's stream. The caller holds `state`, and so nobody else takes the run before it does.
  Block* publish(const Plan& plan, std::uint64_t tick, bool succeeded);

  // Makes donors spare. Left out are those that are not free any more, or behind a fence that has not passed. The
  // blocks stay mapped where they were. By descending address. Throws std::bad_alloc with some of it done.
  std::vector<memory::PhyBlock*> vacate(std::span<const Donor> donors, StateSteps& steps);

 private:
  // Donors that lay next to each other in one run.
  struct Span {
    std::span<const Donor> donors;  // by descending address
    Block* claimed = nullptr;
    memory::Fence freed;
  };

  bool claim_window(const Plan& plan, StateSteps& steps);
  static std::span<const Donor> adjacent(std::span<const Donor> donors);
  bool claim_span(std::span<const Donor> donors, memory::StreamIndex stream, bool stream_wait);
  void unclaim(const Plan& plan, StateSteps& steps);
  Status make_waits(const Plan& plan);
  Status change_mappings(const Plan& plan);
  Status retire(const Plan& plan);
  void undo();

  memory::MappingTable& mappings_;
  memory::PhyPool& phy_pool_;
  memory::Fences& fences_;
  Block* window_ = nullptr;
  std::uint64_t window_tick_ = 0;  // of the last free in it
  Pool::Stash stash_;              // for the pieces that the window falls into again where execute() fails
  std::vector<Span> spans_;
  std::vector<memory::Mapping*> placed_;  // made by this plan, in the order of its fills
};

}  // namespace gmlake::stitch
