// Where the memory of a block may lie, beside its own GPU. A plain value.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace gmlake {

struct Placement {
  enum class Kind : std::uint8_t {
    local,   // on the block's own device
    spill,   // there as far as there is memory, then on the GPUs listed, in that order, then on the host where `host`
             // says
    stripe,  // in pieces that go round the GPUs listed
  };
  Kind kind = Kind::local;
  std::vector<int> devices = {};  // GPUs whose memory the block's device can use; those that it cannot are passed over
  bool host = false;              // spill: then the NUMA node of the host that is nearest to the device

  static Placement spill(std::vector<int> peers, bool then_host = true) {
    return {Kind::spill, std::move(peers), then_host};
  }
  static Placement stripe(std::vector<int> over) { return {Kind::stripe, std::move(over), false}; }
};

}  // namespace gmlake
