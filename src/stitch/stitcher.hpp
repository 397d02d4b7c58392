// Carries out a plan: claim, then the driver's calls, then publish; and undoes all of it when a call fails.
//
// The three steps are apart because they want different locks. claim() and publish() change books alone and want
// `state` and `grow`; execute() makes the driver calls and wants `grow` alone, so that hits on other threads go on
// meanwhile.
#pragma once

#include <cstdint>
#include <vector>

#include "memory/mapping_table.hpp"
#include "stitch/plan.hpp"

namespace gmlake::stitch {

class Stitcher {
 public:
  Stitcher(memory::MappingTable& mappings, memory::PhyPool& phy_pool, memory::Fences& fences)
      : mappings_(mappings), phy_pool_(phy_pool), fences_(fences) {}

  // Takes the window and every donor out of the books, and sets aside the host memory that publish() may need.
  // Throws std::bad_alloc with nothing changed.
  void claim(const Plan& plan);

  // Retires, creates, maps and grants access. On an error the mappings made are gone again, and the window and the
  // donors are as they were; blocks that were created stay, spare. The error is the first refusal.
  Status execute(const Plan& plan, bool stream_wait);

  // Puts everything back into the books as it is now. Returns the free run that begins the window, or null where
  // execute() failed. `tick`: the clock of the window's stream.
  Block* publish(const Plan& plan, std::uint64_t tick, bool succeeded);

 private:
  struct Taken {
    memory::Mapping* mapping;  // the donor's home when it was claimed
    Block* claimed;
    memory::Fence fence;
  };

  Status make_waits(const Plan& plan);
  Status change_mappings(const Plan& plan, bool stream_wait);
  Status retire(const Plan& plan);
  void undo();

  memory::MappingTable& mappings_;
  memory::PhyPool& phy_pool_;
  memory::Fences& fences_;
  Block* window_ = nullptr;
  Pool::Stash stash_;  // for the pieces that the window falls into again where execute() fails
  std::vector<Taken> taken_;
  std::vector<memory::Mapping*> placed_;  // made by this plan, in the order of its fills
};

}  // namespace gmlake::stitch
