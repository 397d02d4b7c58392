// A segment as text, in granules from its begin: "L4 F2a+1 [2b L0.5 F1.5] H3 S2a".
//   L4      a live VirBlock over one PhyBlock of 4 granules          P4  the same, freed and pending
//   F2a+1   a free run over PhyBlock `a` of 2 granules and one of 1  f2  the same, behind a fence that has not passed
//   H3      a hole with nothing mapped
//   S2a     a hole with a stale mapping of PhyBlock `a`              s2a the same, behind a fence that has not passed
//   Q2a     the same, quarantined
//   [2b L0.5 F1.5]   VirBlocks that do not end where PhyBlocks do: first the PhyBlocks, then the VirBlocks
// A PhyBlock without a name whose size is no power of two stands for as few as that takes, the largest first.
// A PhyBlock that only stale mappings name is spare.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace gmlake::stitch::testing {

struct PhyPart {
  unsigned granules = 0;
  std::string name;  // may be empty
};

struct LayoutItem {
  char kind = 0;               // a letter as above; 'M' for PhyBlocks, which the L, P, F and f after them lie on
  double granules = 0;         // its length
  std::vector<PhyPart> parts;  // of M, S, s, Q
};

std::vector<LayoutItem> parse_layout(std::string_view text);

}  // namespace gmlake::stitch::testing
