#include "stitch/survey.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace gmlake::stitch {
namespace {

// Records looked at in one step, of one to three cache lines each: a few microseconds at the very worst.
constexpr std::size_t kRecordsPerStep = 32;
// More holes than any job has been seen to leave; adversaries leave thousands.
constexpr std::size_t kMaxHoles = 1024;

HoleView view_of(Block* hole) {
  HoleView view;
  view.hole = hole;
  view.segment = hole->segment;
  view.address = view.left = hole->address;
  view.end = view.right = hole->end();
  const Block* before = hole->prev;
  if (before != nullptr && before->state == State::free) {
    view.left = before->address;
    // What is left of a live block's last PhyBlock stays behind it.
    if (before->bytes < hole->segment->granule()) before = before->prev;
  }
  if (before != nullptr && before->state == State::live) view.live_before = before->bytes;
  if (hole->next != nullptr && hole->next->state == State::free) view.right = hole->next->end();
  return view;
}

}  // namespace

void Survey::begin() {
  holes_.clear();
  by_age_.clear();
  runs_.clear();
  by_address_.clear();
  last_ = {};
  saw_all_runs_ = false;
}

void Survey::see_holes(Pool& pool, StateSteps& steps) {
  const std::size_t count = std::min(pool.holes().size(), kMaxHoles);
  seen_.resize(count);
  seen_by_address_.resize(count);
  Block* hole = pool.holes().back();
  for (std::uint32_t i = 0; i < count;) {
    const std::size_t stop = std::min(count, i + kRecordsPerStep);
    const StateStep step(steps);
    pool.settle();
    for (; i < stop; ++i, hole = Pool::HoleList::prev(hole)) {
      seen_[i] = view_of(hole);
      seen_by_address_[i] = {hole->address, i};
    }
  }
  std::sort(seen_by_address_.begin(), seen_by_address_.end());
  holes_.resize(count);
  by_age_.resize(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t newer = seen_by_address_[i].second;
    holes_[i] = seen_[newer];
    by_age_[count - 1 - newer] = i;
  }
}

void Survey::see_runs_of(Pool& pool, std::uint64_t granule, std::size_t most, StateSteps& steps) {
  Block* last = nullptr;  // seen; where the next step goes on
  Address last_address = 0;
  std::uint64_t last_bytes = 0;
  for (bool done = false; !done;) {
    runs_.reserve(runs_.size() + kRecordsPerStep);
    const StateStep step(steps);
    pool.settle();
    Block* run = nullptr;
    if (last == nullptr) {
      run = pool.first_free(granule);
    } else if (Pool::BlockSlab::is_live(last) && last->state == State::free && last->pool == &pool &&
               last->address == last_address && last->bytes == last_bytes) {
      run = pool.free_after(last);
    } else {
      run = pool.first_free(last_bytes + kAlignment);  // somebody took it: the rest of its bin is passed over
    }
    std::size_t looked_at = 0;
    for (; run != nullptr && looked_at < kRecordsPerStep && runs_.size() < most; run = pool.free_after(run)) {
      ++looked_at;
      last = run;
      last_address = run->address;
      last_bytes = run->bytes;
      if (run->bytes < granule) continue;  // of the first bin
      runs_.push_back({run, run->segment, run->address, run->end(), {pool.stream(), run->tick_or_requested}});
    }
    done = run == nullptr;
    if (!done && runs_.size() >= most) {
      saw_all_runs_ = false;
      return;
    }
  }
}

void Survey::see_runs(std::span<Pool* const> donors, memory::StreamIndex stream, bool stream_wait, std::size_t most,
                      StateSteps& steps) {
  runs_.clear();
  by_address_.clear();
  last_ = {};
  saw_all_runs_ = true;
  for (Pool* pool : donors) {
    if (pool->segment_count() == 0) continue;
    const auto first_of_pool = static_cast<std::ptrdiff_t>(runs_.size());
    see_runs_of(*pool, pool->segment(0)->granule(), most, steps);
    if (pool->stream() != stream && !stream_wait) {
      const auto passed = std::remove_if(runs_.begin() + first_of_pool, runs_.end(),
                                         [this](const RunView& run) { return !fences_.passed(run.freed); });
      runs_.erase(passed, runs_.end());
    }
    // The shortest first: they are of least use as they are.
    std::sort(runs_.begin() + first_of_pool, runs_.end(), [](const RunView& a, const RunView& b) {
      const std::uint64_t a_bytes = a.end - a.address;
      const std::uint64_t b_bytes = b.end - b.address;
      return a_bytes != b_bytes ? a_bytes < b_bytes : a.address > b.address;
    });
  }
  by_address_.resize(runs_.size());
  for (std::uint32_t i = 0; i < by_address_.size(); ++i) by_address_[i] = i;
  std::sort(by_address_.begin(), by_address_.end(),
            [this](std::uint32_t a, std::uint32_t b) { return runs_[a].address < runs_[b].address; });
}

Survey::Stretch Survey::stretch_at(Address address) const {
  const auto behind = std::upper_bound(by_address_.begin(), by_address_.end(), address,
                                       [this](Address at, std::uint32_t i) { return at < runs_[i].address; });
  Stretch stretch{0, behind == by_address_.end() ? UINT64_MAX : runs_[*behind].address};
  if (behind == by_address_.begin()) return stretch;
  const RunView& before = runs_[behind[-1]];
  if (address < before.end) return {before.address, before.end, &before};
  stretch.begin = before.end;
  return stretch;
}

}  // namespace gmlake::stitch
