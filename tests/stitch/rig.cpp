#include "stitch/rig.hpp"

#include <algorithm>
#include <sstream>

#include "stitch/layout.hpp"

namespace gmlake::stitch::testing {

using memory::Fence;
using memory::Mapping;
using memory::PhyBlock;
using memory::VmmSegment;

Rig::Rig(driver::SimulatedDriver& inner, std::uint32_t granule_shift)
    : simulated(inner),
      sheltered(inner),
      driver(sheltered),
      fences(driver),
      phy(driver, {}, granule_shift),
      table(driver, phy, granule_shift, {0}),
      a(fences.open({0, 0}), SizeClass::large, slab),
      b(fences.open({0, 1}), SizeClass::large, slab),
      planner(phy, fences),
      stitcher(table, phy, fences),
      shift_(granule_shift) {}

Rig::~Rig() {
  driver.heal();
  table.shut_down();
  EXPECT_EQ(simulated.usage(), driver::Usage{});
  EXPECT_TRUE(simulated.streams().violations().empty());
}

std::uint64_t Rig::bytes(double granules) const {
  return static_cast<std::uint64_t>(granules * static_cast<double>(granule()));
}

PhyBlock* Rig::spare(const std::string& name, std::uint32_t granules) {
  PhyBlock*& block = named[name];
  if (block == nullptr) block = phy.create(granules).value();
  EXPECT_EQ(block->granules, granules) << name;
  return block;
}

VmmSegment* Rig::lay(Pool& pool, std::string_view layout) {
  const std::vector<LayoutItem> items = parse_layout(layout);
  double granules = 0;
  for (const LayoutItem& item : items) {
    if (item.parts.empty() && item.kind != 'H') continue;
    granules += item.granules;
  }
  VmmSegment* segment = table.reserve(static_cast<std::uint32_t>(granules)).value();
  pool.adopt(segment);
  Block* claimed = pool.claim(pool.first_block(segment), segment->base, segment->end());
  // What is mapped where: stale mappings first, since the home is where a block came to last.
  for (const bool stale : {true, false}) {
    std::uint32_t slot = 0;
    for (const LayoutItem& item : items) {
      if (item.kind == 'H') slot += static_cast<std::uint32_t>(item.granules);
      for (const PhyPart& part : item.parts) {
        if (stale == (item.kind != 'M')) {
          PhyBlock* block = part.name.empty() ? phy.create(part.granules).value() : spare(part.name, part.granules);
          Mapping* mapping = table.map(segment, slot, block).value();
          EXPECT_TRUE(table.set_access(segment, slot, part.granules).ok());
          mapping->stream = pool.stream();
          mapping->tick = item.kind == 's' ? kPending : 0;
          if (!stale) table.settle(mapping);
          if (item.kind == 'Q') {
            driver.arm({.kind = Step::unmap});
            EXPECT_FALSE(table.unmap({&mapping, 1}).ok());
            driver.heal();
          }
        }
        slot += part.granules;
      }
    }
  }
  pool.publish(claimed, 0);
  // Which bytes are whose: all are taken from left to right, and the free ones given back then.
  Address at = segment->base;
  std::vector<std::pair<Block*, char>> taken;
  for (const LayoutItem& item : items) {
    if (item.kind == 'M') continue;
    if (item.parts.empty() && item.kind != 'H') {
      Block* block = pool.first_block(segment);
      while (block->address != at) block = block->next;
      taken.emplace_back(pool.take(block, bytes(item.granules), bytes(item.granules)), item.kind);
    }
    at += bytes(item.granules);
  }
  for (const auto& [block, kind] : taken) {
    if (kind == 'P') block->state = State::pending;
    if (kind == 'L' || kind == 'P') live.push_back(block);
    if (kind == 'F' || kind == 'f') pool.give_back(block, kind == 'f' ? kPending : 0);
  }
  pool.settle();
  check();
  return segment;
}

std::string Rig::blocks(const Pool& pool, const VmmSegment* segment) const {
  std::ostringstream out;
  for (const Block* block = pool.first_block(segment); block != nullptr; block = block->next) {
    const char* letters = "FLPHC";
    out << (block->prev == nullptr ? "" : " ") << letters[static_cast<int>(block->state)]
        << static_cast<double>(block->bytes) / static_cast<double>(granule());
  }
  return out.str();
}

std::string Rig::books() const {
  std::ostringstream out;
  for (const Pool* pool : {&a, &b}) {
    out << "pool: " << pool->free_bytes() << " free in " << pool->free_runs() << ", " << pool->holes().size()
        << " holes\n";
    for (std::size_t i = 0; i < pool->segment_count(); ++i) {
      const VmmSegment* segment = pool->segment(i);
      out << "  segment " << segment->base << " " << blocks(*pool, segment) << " ticks";
      for (const Block* block = pool->first_block(segment); block != nullptr; block = block->next) {
        out << " " << (block->state == State::hole ? 0 : block->tick_or_requested);
      }
      out << "\n  mapped " << segment->mapped_slots << ":";
      for (std::uint32_t slot = 0; slot < segment->slots.size();) {
        const Mapping* mapping = segment->slots[slot];
        if (mapping == nullptr) {
          ++slot;
          continue;
        }
        out << " " << slot << "=" << static_cast<std::uint64_t>(mapping->block->handle)
            << (mapping->quarantined ? "q"
                : mapping->stale()   ? "s"
                                     : "h");
        if (mapping->stale()) out << mapping->stream << "/" << mapping->tick;
        slot += mapping->block->granules;
      }
      out << "\n";
    }
  }
  out << table.mapping_count() << " mappings, " << table.stale_granules() << " stale, " << table.quarantined_bytes()
      << " quarantined, " << table.reserved_address_bytes() << " reserved, " << phy.in_use().size() << " in use, "
      << phy.held_bytes() - phy.spare_bytes() << " held, " << phy.lost_bytes() << " lost\n";
  return out.str();
}

std::optional<Plan> Rig::plan(Pool& pool, double granules, const Ask& ask) {
  std::vector<Pool*> donors = ask.donors;
  if (donors.empty()) donors.push_back(&pool);
  return planner.make({.pool = &pool,
                       .bytes = bytes(granules),
                       .donors = donors,
                       .stream_wait = ask.stream_wait,
                       .block_granules = ask.unit,
                       .slack_granules = ask.slack,
                       .headroom_granules = ask.headroom},
                      steps);
}

std::string Rig::name_of(const PhyBlock* block) const {
  for (const auto& [name, other] : named) {
    if (other == block) return name;
  }
  return "?";
}

std::string Rig::describe(const std::optional<Plan>& plan) const {
  if (!plan) return planner.failure() == PlanFailure::no_window ? "no window" : "no memory";
  const auto granules = [&](Address at) {
    return static_cast<double>(at - plan->segment->base) / static_cast<double>(granule());
  };
  std::ostringstream out;
  if (plan->segment->index != 0) out << "#" << plan->segment->index << " ";
  out << granules(plan->begin) << ".." << granules(plan->end);
  for (const Mapping* mapping : plan->revive) out << " revive " << name_of(mapping->block) << "@" << mapping->slot;
  for (const Mapping* mapping : plan->retire) out << " retire " << name_of(mapping->block) << "@" << mapping->slot;
  for (const Plan::Fill& fill : plan->fills) {
    if (fill.block == nullptr) {
      out << " create " << fill.granules;
    } else {
      out << (fill.block->home != nullptr ? " move " : " spare ") << name_of(fill.block);
    }
    out << "@" << fill.slot;
  }
  return out.str();
}

Block* Rig::publish(const Plan& plan, std::uint64_t at, bool succeeded) {
  stitcher.publish_donors(steps);
  return stitcher.publish(plan, at, succeeded);
}

Block* Rig::carry_out(const Plan& plan) {
  if (!stitcher.claim(plan, steps)) return nullptr;
  const bool succeeded = stitcher.execute(plan).ok();
  return publish(plan, tick, succeeded);
}

void Rig::check() const {
  table.check();
  phy.check();
  simulated.check();
  std::size_t records = 0;
  for (const Pool* pool : {&a, &b}) {
    pool->check();
    for (std::size_t i = 0; i < pool->segment_count(); ++i) {
      for (const Block* block = pool->first_block(pool->segment(i)); block != nullptr; block = block->next) {
        ++records;
        EXPECT_NE(block->state, State::claimed);
      }
    }
  }
  EXPECT_EQ(records, slab.live_count());
  for (const memory::PhyPool::BlockList* list : {&phy.in_use(), &phy.spare()}) {
    for (const PhyBlock* block = list->front(); block != nullptr; block = memory::PhyPool::BlockList::next(block)) {
      EXPECT_FALSE(block->planned) << "a plan left its mark";
    }
  }
}

void StitchTest::expect_plan(std::string_view layout, double granules, const Ask& ask, const std::string& expected,
                             const std::string& after) {
  SCOPED_TRACE(::testing::Message() << layout << ", " << granules << " wanted");
  Rig rig(model_, shift());
  const VmmSegment* segment = rig.lay(rig.a, layout);
  const std::string before = rig.books();
  const std::optional<Plan> plan = rig.plan(rig.a, granules, ask);
  EXPECT_EQ(rig.describe(plan), expected);
  EXPECT_EQ(rig.books(), before) << "a plan changes nothing";
  if (!plan) return;
  const Address begin = plan->begin;
  const Address end = plan->end;
  EXPECT_GE(end - begin, rig.bytes(granules));
  Block* run = rig.carry_out(*plan);
  ASSERT_NE(run, nullptr);
  EXPECT_EQ(run->address, begin);
  EXPECT_GE(run->end(), end);
  rig.check();
  (void)rig.a.take(run, rig.bytes(granules), 1);
  rig.check();
  EXPECT_TRUE(model_.has_access(run->address, run->bytes, 0));
  if (!after.empty()) {
    EXPECT_EQ(rig.blocks(rig.a, segment), after);
  }
}

}  // namespace gmlake::stitch::testing
