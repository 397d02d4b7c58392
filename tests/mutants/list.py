"""Named mutants: small edits of the sources, each a bug that somebody might write, and the test that has to fail then.

tools/mutants.py applies them one at a time in a copy of the tree. An edit names text that occurs once in its file: where
the sources move on, the mutant moves with them, and `tools/mutants.py --check` (a test) says which.
"""
from typing import NamedTuple


class Mutant(NamedTuple):
    name: str  # what goes wrong
    file: str
    edits: list  # of (old text, new text)
    program: str  # of the test that has to fail
    filter: str  # and which tests of it; the first that fails ends the run


def mutant(name, file, old, new, program, which="*"):
    return Mutant(name, file, [(old, new)], program, which)


INTERLEAVINGS = "alloc_interleavings_test"
FAULTS = "alloc_fault_sweep_test"
NEW = "alloc_failing_new_test"
RANDOM = "alloc_random_test"

FENCES = "src/memory/fences.cpp"
TABLE = "src/memory/mapping_table.cpp"
PHY_POOL = "src/memory/phy_pool.cpp"
STITCHER = "src/stitch/stitcher.cpp"
PLAN = "src/stitch/plan.cpp"
SURVEY = "src/stitch/survey.cpp"
POOL = "src/stitch/pool.cpp"
DEVICE = "src/alloc/device_allocator.cpp"
HOT = "src/alloc/hot_path.hpp"
STITCH = "src/alloc/device_stitch.cpp"
OF_STREAMS = "src/alloc/device_streams.cpp"
PRIVATE_POOLS = "src/alloc/private_pools.cpp"
LADDER = "src/alloc/device_ladder.cpp"
DEFERRED = "src/alloc/device_deferred.cpp"
CLEAR = "src/alloc/device_clear.cpp"
PLACED = "src/alloc/placed_blocks.cpp"
BORROW = "src/alloc/device_borrow.cpp"
TRIM = "src/alloc/device_trim.cpp"
CALLBACKS = "src/alloc/oom_callbacks.cpp"
OOM = "src/alloc/device_oom.cpp"
GARBAGE = "src/alloc/device_garbage.cpp"
WORKER = "src/alloc/background_worker.cpp"
RECORDER = "src/observe/recorder.cpp"
BOOKS = "src/driver/books.cpp"
STREAMS = "src/driver/stream_simulator.cpp"

MUTANTS = [
    # Order between streams.
    mutant("a wait for a fence does not wait", FENCES,
           "    if (Status waited = driver_.event_synchronize(oldest.event); !waited) return waited;\n", "",
           INTERLEAVINGS, "*Model*WithoutStreamWaits"),
    mutant("a fence passes one tick early", "src/memory/fences.hpp",
           "load(std::memory_order_acquire) >= fence.tick;", "load(std::memory_order_acquire) + 1 >= fence.tick;",
           INTERLEAVINGS, "*Model*"),
    mutant("one event that passed stands for all that follow it", FENCES,
           "store(marks.front().tick, ", "store(marks.back().tick, ", "memory_test", "Fences*"),
    mutant("a stream waits for the oldest event, not for the one that counts", FENCES,
           "return driver_.stream_wait(waits, mark.event);",
           "return driver_.stream_wait(stream(waiter), clocks_[fence.stream].marks.front().event);", "memory_test",
           "Fences*"),
    mutant("an event that is pending stands for later ticks too", FENCES,
           "(!marked.marks.empty() && marked.marks.back().tick >= tick)", "!marked.marks.empty()", "memory_test",
           "Fences*"),
    mutant("a stitch across streams makes no stream wait", STITCHER,
           "    if (Status waits = make_waits(plan); !waits.ok()) return waits;\n", "    (void)plan;\n",
           INTERLEAVINGS, "*Model*TakingTurns"),
    mutant("of several frees of a stream the first is waited for", STITCHER,
           "same->tick = std::max(same->tick, taken.freed.tick);", "same->tick = std::min(same->tick, taken.freed.tick);",
           "stitch_test", "*/PlanStreams*"),
    mutant("what leaves its home forgets since when", STITCHER,
           "const memory::Fence freed{run->pool->stream(), run->tick_or_requested};",
           "const memory::Fence freed{run->pool->stream(), 0};", INTERLEAVINGS, "*Model*TakingTurns"),
    mutant("a stale mapping keeps the fence of an earlier time", TABLE,
           "  home->tick = fence.tick;\n", "  home->tick = 0;\n", "memory_test", "*Retire*:*MappingTable*"),
    mutant("stale mappings are unmapped before their fence", TABLE,
           "over > 0 && fences.passed(next->fence()) &&", "over > 0 &&", INTERLEAVINGS, "*Model*MappingsRetiredAtOnce"),
    mutant("a plan counts on memory of other streams before its fence", SURVEY, "return !fences_.passed(run.freed);",
           "return false && !fences_.passed(run.freed);", "stitch_test", "*Plan*"),
    mutant("a claim takes what was freed again since the plan looked at it", STITCHER,
           "  if (freed.stream != stream && !stream_wait && !fences_.passed(freed)) return false;\n",
           "  (void)stream, (void)stream_wait;\n", "stitch_test", "Outdated*"),
    mutant("a claim takes a run that is a caller's by now", STITCHER, "run->state != State::free || ", "",
           "stitch_test", "Outdated*"),
    Mutant("a stale mapping in the way is unmapped before its fence", PLAN,
           [("      if (!fences_.passed(mapping->fence())) return;\n", ""),
            ("        if (!fences_.passed(mapping->fence())) return std::nullopt;\n", "")], "stitch_test", "*/Plan*"),
    mutant("a run merged from the left forgets its neighbour's last free", POOL,
           "block->tick_or_requested = std::max(block->tick_or_requested, next->tick_or_requested);", ";", "stitch_test",
           "Pool*"),
    mutant("a run merged from the right forgets its neighbour's last free", POOL,
           "      prev->tick_or_requested = std::max(prev->tick_or_requested, block->tick_or_requested);\n", "",
           "stitch_test", "Pool*"),
    mutant("a freed block joined to the run before it is forgotten", POOL,
           "    prev->tick_or_requested = std::max(prev->tick_or_requested, block->tick_or_requested);\n    absorb_next(prev);\n"
           "    if (joins_next) {", "    absorb_next(prev);\n    if (joins_next) {", "stitch_test", "Pool*"),
    mutant("a freed block joined to the run behind it is forgotten", POOL,
           "    next->tick_or_requested = std::max(next->tick_or_requested, block->tick_or_requested);\n", "",
           INTERLEAVINGS, "*Model*"),
    mutant("a published run begins as if it had never been used", POOL,
           "block->tick_or_requested = home ? tick : 0;", "block->tick_or_requested = 0;", "stitch_test", "Pool*"),
    mutant("record_stream is forgotten at the free", DEVICE,
           "const bool at_once = !clears && !block->used_elsewhere && pool.stream() == freed_on.index;",
           "const bool at_once = !clears && pool.stream() == freed_on.index;", INTERLEAVINGS, "*Model*RecordedUses"),
    mutant("the stream that a block was freed on is forgotten", DEFERRED,
           "if (allocated_for(block) != freed_on && ", "if (false && ", INTERLEAVINGS, "*Model*FreedOnOtherStreams"),
    mutant("a deferred block comes back without its own stream's tick", DEFERRED,
           "complete(*deferred, tick_after(*deferred));", "complete(*deferred, 0);", INTERLEAVINGS, "*Model*"),
    mutant("a stream borrows before the owner's fence", BORROW,
           "if (freed.tick <= waited || fences_.passed(freed)) best", "best", INTERLEAVINGS, "*Model*Borrowing"),
    mutant("a stream borrows behind a wait that it does not make", BORROW,
           "Status waits = fences_.make_stream_wait(request.stream.index, fence); !waits.ok()",
           "Status waits = fences_.mark(fence.stream, fence.tick); !waits.ok()", INTERLEAVINGS,
           "*Model*BorrowingAtTheLimit"),
    mutant("a borrowed block is not recorded as used by its borrower", BORROW,
           "  block->used_elsewhere = true;\n", "  block->used_elsewhere = false;\n  uses_.erase(block);\n", INTERLEAVINGS,
           "*Model*Borrowing"),
    mutant("a borrowed block that no stream is named for is freed as its owner's", DEFERRED,
           "return uses.borrowed ? uses.streams.front() : block.pool->stream();", "return block.pool->stream();",
           "alloc_test", "Borrowed*"),
    mutant("a borrowed block is its borrower's again while others use it", BORROW,
           "if (deferred.fences_left != 1 || block->bytes", "if (block->bytes", "alloc_test", "Borrowed*"),
    mutant("a borrowed block is recalled without a wait", DEFERRED,
           "!fences_.make_stream_wait(wait.stream, {user.index, wait.tick}).ok();", "false;", "alloc_test", "*Borrowed*"),
    mutant("a recalled block lies behind an earlier point of its owner", DEFERRED,
           "++streams_[used.stream]->tick", "0", "alloc_test", "*Borrowed*"),
    mutant("a stream waits for what a copy still uses while there is memory", DEFERRED,
           "at_limit ? std::optional(request.stream.index) : std::nullopt", "std::optional(request.stream.index)",
           "alloc_test", "*Ladder*"),
    mutant("a block of a private pool is recalled by the order of its stream", DEFERRED,
           "(pool.stream() == waiter && !pool.pinned())", "pool.stream() == waiter", "alloc_test", "*PrivatePools*"),
    mutant("a stream that is behind grows all the same", LADDER, "fences_.behind(request.stream.index);", "false;",
           "alloc_test", "*Ladder*"),
    mutant("an idle stream waits for others rather than grow", LADDER, "fences_.behind(request.stream.index);", "true;",
           "alloc_test", "*Ladder*"),
    mutant("a captured stream is asked whether it is idle", FENCES, "  if (captured(index)) return false;\n", "",
           "alloc_test", "*Ladder*"),
    mutant("to ask whether a stream is idle breaks the captures of others", FENCES,
           "  const driver::RelaxedCapture relaxed(driver_);\n  const Result<bool> idle", "  const Result<bool> idle",
           "alloc_test", "*Ladder*"),
    mutant("what waits for a fence counts as live where the slack is worked out", STITCH,
           "usage_.live_bytes() + request.bytes", "usage_.active_bytes() + request.bytes", "alloc_test", "*Ladder*"),
    mutant("a borrowed block waits for what its owner does elsewhere", DEFERRED,
           "return !deferred.borrowed && deferred.own_stream == deferred.block->pool->stream() ? deferred.own_tick : 0;",
           "return deferred.block->pool->stream() == deferred.own_stream ? deferred.own_tick : UINT64_MAX / 2;", "alloc_test",
           "Borrowed*"),
    mutant("deferred blocks wait for the first of their streams alone", DEFERRED,
           "  const std::vector<memory::StreamIndex> uses = uses_of(*block, freed_on);\n",
           "  std::vector<memory::StreamIndex> uses = uses_of(*block, freed_on);\n  uses.resize(1);\n", INTERLEAVINGS,
           "*Model*TakenAgainByItsOwnStream"),
    mutant("a free does not advance its stream's clock", HOT, "++own.tick", "own.tick", INTERLEAVINGS, "*Model*"),
    mutant("a free at once overlooks record_stream", HOT,
           "if (block == nullptr || block->used_elsewhere) return false;", "if (block == nullptr) return false;",
           INTERLEAVINGS, "*Model*RecordedUses"),
    mutant("a free at once overlooks the stream that it was freed on", HOT,
           "  if (stream && own.stream.handle != *stream) return false;\n", "", INTERLEAVINGS,
           "*Model*FreedOnOtherStreams"),
    mutant("cached memory is counted on to be released before its fence", TRIM, "    if (passed) found.push_back(",
           "    found.push_back(", "alloc_test", "Placement*"),

    mutant("a forgotten stream's memory goes on before its work is complete", OF_STREAMS,
           "  if (!fences_.passed({gone.index, UINT64_MAX})) return false;\n", "", RANDOM, "*ManyStreams"),
    mutant("a released pool joins the cache before its fences", PRIVATE_POOLS,
           "return std::all_of(pool.fences.begin(), pool.fences.end(),",
           "return pool.fences.empty() || std::any_of(pool.fences.begin(), pool.fences.end(),", "alloc_test", "*Private*"),
    mutant("a private pool takes memory of its own stream without a fence", "src/stitch/pool.hpp",
           "return pinned_ ? kNoStream : stream_;", "return stream_;", "alloc_test", "*Private*"),

    # Books in shards.
    mutant("a hit that passes a peak does not write it down", HOT, "    find_room(shard);\n", "", "alloc_test", "Stats*"),
    mutant("what lives on a stream that is gone stays in its shard", OF_STREAMS,
           "    to.live.insert_reserved(block);\n", "    from.live.insert(block);\n", "alloc_test", "ForgottenStreams*"),
    mutant("a shard borrows room and the lender keeps it", "src/alloc/usage.cpp", "        lender -= lent;\n", "",
           "alloc_test", "Usage*"),
    # Undoing what failed.
    mutant("mappings of a failed stitch stay", STITCHER,
           "  for (Mapping* mapping : placed_) (void)mappings_.unmap({&mapping, 1}).ok();\n", "", "stitch_test",
           "*Fault*:*Fail*:*Stitch*"),
    mutant("the record of a mapping that failed is lost", TABLE, "    mappings_.put(mapping);\n    return mapped.error();",
           "    return mapped.error();", "memory_test", "*Mapping*"),
    mutant("the record of a PhyBlock that failed is lost", PHY_POOL, "    blocks_.put(block);\n    return handle.error();",
           "    return handle.error();", "memory_test", "*PhyPool*"),
    mutant("what the driver would not unmap is used again", TABLE, "      mapping->quarantined = 1;\n", "", "memory_test"),
    mutant("a quarantined mapping is planned over", PLAN, "if (mapping->quarantined || mapping->slot < slot) return;",
           "if (mapping->slot < slot) return;", "stitch_test", "*/Plan*"),
    mutant("what the driver would not release is not tried again at the end", TABLE, "  pool_.release_lost();\n", "",
           "memory_test", "*ShutDown*"),
    mutant("a window behind a stream's wait that is left free is as old as its stream", STITCH,
           "    if (plan.stream_wait) ++request.stream.tick;\n", "", "alloc_oom_host_memory_test", "OomOfTheHost*"),
    mutant("addresses stay reserved where their books find no host memory", STITCH,
           "    (void)mappings_.address_free(*segment).ok();\n    throw;", "    throw;", NEW, "*Model*"),
    mutant("the number of a stream whose books found no host memory is lost", OF_STREAMS,
           "    fences_.reclaim(index, index < streams_.size() ? streams_[index]->tick : 0);\n    throw;", "    throw;", NEW,
           "*Model*CrossStream"),
    mutant("a stitch sets nothing aside for its end", POOL, "  blocks_.reserve(kept + now);\n", "", "stitch_test", "Pool*"),

    # Counts.
    mutant("retired mappings stay in the segment's count", TABLE, "  segment->mapped_slots -= block->granules;\n", "",
           "memory_test", "*Mapping*"),
    mutant("a home that is settled stays in the stale count", TABLE,
           "  add(stale_granules_, -std::uint64_t{block->granules});\n  block->home = mapping;", "  block->home = mapping;",
           "memory_test"),
    mutant("refused addresses are not counted as quarantined", TABLE,
           "    add(quarantined_bytes_, segment->bytes());\n    lost_segments_", "    lost_segments_", "memory_test"),
    mutant("created memory is not counted as held", PHY_POOL,
           "  add(held_, bytes_of(block));\n  add(spare_bytes_, bytes_of(block));",
           "  add(spare_bytes_, bytes_of(block));", "memory_test", "*PhyPool*"),
    mutant("lost memory is not counted", PHY_POOL, "    add(lost_bytes_, bytes_of(block));\n    return released;",
           "    return released;", "memory_test", "*PhyPool*"),
    mutant("the peak of held memory does not rise", PHY_POOL, "if (held_bytes() > peak_held_bytes())", "if (false)",
           "memory_test", "*PhyPool*"),
    mutant("a free run is not counted in its pool", POOL, "  free_bytes_ += block->bytes;\n", "", "stitch_test",
           "Pool*"),
    mutant("a block freed with uses leaves its list of them behind", DEFERRED, "  uses_.erase(found);\n", "",
           INTERLEAVINGS, "*Model*RecordedUses"),

    # Policy and bounds.
    mutant("a plan may create past the limit", PLAN, "return plan.created_granules <= request.headroom_granules;",
           "return true;", "alloc_test", "*Limit*"),
    mutant("a PhyBlock is revived from the window that it is wanted in", PLAN,
           "return run != nullptr && (run->end <= begin || run->address >= end);", "return run != nullptr;",
           "stitch_test", "*"),
    mutant("access is granted to the first granule alone", STITCHER,
           "mappings_.set_access(plan.segment, begin, end - begin)", "mappings_.set_access(plan.segment, begin, 1)",
           "stitch_test", "*Stitch*"),

    # The strict backends.
    mutant("the books take a mapping over another", BOOKS,
           "  if (!table_.empty(address >> shift_, bytes >> shift_)) return invalid(Step::map, address);\n", "",
           "driver_test", "*Conformance*"),
    mutant("the books unmap a part of a mapping", BOOKS, " || mapping.bytes > end - next) return invalid(step, next);",
           ") return invalid(step, next);", "driver_test", "*Conformance*"),
    mutant("a new mapping has access at once", BOOKS, "mappings_[slot] = {address, bytes, 0, index};",
           "mappings_[slot] = {address, bytes, 1, index};", "driver_test", "*Conformance*"),
    mutant("memory goes with its handle, whatever is mapped", BOOKS, "if (memory.held || memory.mappings != 0) return;",
           "if (memory.held) return;", "driver_test", "*Conformance*"),
    mutant("memory that pending work touches is unmapped", STREAMS,
           "        return invalid_call(Step::unmap, address);\n", "        return {};\n", "driver_test"),
    mutant("a simulated stream does not wait", STREAMS, "  wait.until = state->point;\n", "", "driver_test", "*Stream*:*Event*"),
    # The process and its edges.
    mutant("a fork goes unnoticed", "src/base/process.cpp",
           "detail::epoch.fetch_add(detail::kFork,", "detail::epoch.fetch_add(0,", "process_fork_test"),
    mutant("the end of an allocator in a forked child reaches the driver", "src/alloc/allocator.cpp",
           "  if (state_->origin.intact()) return;\n", "  if (state_) return;\n", "process_fork_test"),
    mutant("a device that is lost is called again", "src/driver/gate.cpp",
           "  if (lost()) return Error{ErrorCode::device_lost, step, value};\n", "", "driver_test", "Gate*"),
    mutant("a device that is lost serves what it has cached", HOT, " || driver_.lost()", "", "alloc_test",
           "LostDevice*"),
    mutant("a handle that is destroyed stands for its object still", "src/capi/handles.cpp",
           "compare_exchange_strong(handle, 0)", "compare_exchange_strong(handle, handle)", "capi_test", "Handles*"),
    mutant("a struct is filled beyond its caller's size", "src/capi/objects.hpp",
           "std::min(size, sizeof known)", "sizeof known", "capi_test", "CApi*"),
    mutant("calls go through to the driver in the child of a fork", "src/driver/gate.cpp",
           "  if (!origin_.intact()) return Error{origin_.lapse(), step, value};\n", "", "driver_test", "Gate*"),
    mutant("the error that loses a device is forgotten", "src/driver/gate.cpp",
           "lost_at_.compare_exchange_strong(none, step, std::memory_order_relaxed);", "(void)none;", "driver_test",
           "Gate*"),

    # Out of memory: who is asked, and what is said.
    mutant("a callback that throws counts as one that freed something", CALLBACKS,
           "    } catch (...) {  // as false\n", "    } catch (...) {\n      answer = Answer::yes;\n", "alloc_test",
           "OomCallbacks*"),
    mutant("a callback is called in the round that added it", CALLBACKS,
           " && static_cast<std::uint64_t>(entry->id) <= last;", "; (void)last", "alloc_test", "OomCallbacks.ThatAdd*"),
    mutant("a callback runs on after it was removed", CALLBACKS,
           "      while (entry->calls > 0) left_.wait(mutex_);\n", "", "alloc_test", "OomCallbacks*"),
    mutant("what callbacks freed is not in the report", OOM,
           "report.rung(Rung::callbacks).found_bytes += less(unused(report), unused(before));",
           "(void)unused(before);", "alloc_test", "Oom*"),
    mutant("running out of memory is not counted", OOM, "    ++counts_.num_ooms;\n", "", "alloc_test"),
    mutant("the last report is not kept", OOM, "    last_oom_ = report;\n", "", "alloc_test", "Oom*"),
    mutant("the advice overlooks what other streams still use", "src/alloc/oom_report.cpp",
           "  if (in_use >= lacking) return choose(Remedy::other_streams, in_use);\n", "  (void)in_use;\n", "alloc_test",
           "Remedy*"),
    mutant("the advice to raise the limit forgets what is held beyond it", "src/alloc/oom_report.cpp",
           "report.reserved_bytes + to_create - report.limit_bytes", "to_create", "alloc_test", "Remedy*"),

    # Garbage collection.
    mutant("what the request will use is collected", GARBAGE,
           "return std::binary_search(planned.begin(), planned.end(), each.block);",
           "return each.block == nullptr && std::binary_search(planned.begin(), planned.end(), each.block);", "alloc_test",
           "Garbage*"),
    mutant("what was cached last is collected first", GARBAGE,
           "if (a.growth != b.growth) return a.growth < b.growth;", "if (a.growth != b.growth) return a.growth > b.growth;",
           "alloc_test", "Garbage*"),
    mutant("everything cached is collected", GARBAGE, "taken < chosen.size() && left > 0;", "taken < chosen.size();",
           "alloc_test", "Garbage*"),
    mutant("blocks near the limit are single granules", "src/alloc/growth_policy.hpp",
           "input.refused ? 0 : least", "true ? 0 : least", "alloc_test", "GrowthPolicy*"),
    mutant("long blocks are asked for again where the driver has refused them", STITCH,
           ".refused = driver_headroom_.has_value(),", ".refused = false,", "alloc_test", "OutOfMemory*"),
    mutant("growth below the threshold collects", GARBAGE, "return after > threshold ? after - threshold : 0;",
           "return after;", "alloc_test", "Garbage*"),

    # The streams of threads.
    mutant("the default streams of all threads are one", "src/driver/per_thread_stream.hpp",
           "  return handle == kPerThreadStream ? thread_stream() : handle;\n",
           "  return handle == kPerThreadStream ? kThreadStreamBit : handle;\n", "alloc_test", "PerThreadStreams*"),
    mutant("an event for another thread's stream is recorded on the caller's own", "src/driver/per_thread_stream.cpp",
           "  return stream == current ? kPerThreadStream : kLegacyStream;\n", "  return kPerThreadStream;\n",
           "driver_test", "PerThreadStream.*"),
    mutant("a thread that nobody has a slot for counts as ended", "src/driver/per_thread_stream.cpp",
           "  if (slot == nullptr) return {number | kUnlistedBit, nullptr};\n",
           "  if (slot == nullptr) return {number, nullptr};\n", NEW, "FailingHostMemoryOfAThread*"),
    mutant("the parent's threads have ended in the child of a fork", "src/driver/per_thread_stream.cpp",
           "  return thread >> 32 == static_cast<std::uint64_t>(process) &&\n         ", "  return ", "driver_test",
           "PerThreadStream.*"),
    mutant("threads that only free are forgotten by nobody", "src/alloc/device_background.cpp",
           "    forget_ended_threads(Caller::worker);\n", "", "alloc_test", "PerThreadStreams*"),
    mutant("any thread that is not the one that looks has ended", "src/driver/per_thread_stream.cpp",
           "if (thread != 0 && is_gone(thread)) {", "if (thread != 0 && thread != ids_of_caller()) {", "driver_test",
           "PerThreadStream.*"),
    mutant("the streams of threads that ended are kept", LADDER, "    forget_ended_threads(Caller::request);\n", "", "alloc_test",
           "PerThreadStreams*"),
    mutant("what a capture keeps from being forgotten is never tried again", OF_STREAMS,
           "if (left-- == 0 || !forget_stream(stream).ok()) return;",
           "if (left-- == 0 || !forget_stream(stream).ok()) break;", "alloc_test", "PerThreadStreams*"),
    mutant("a block keeps a use of each thread that ended", DEFERRED, "if (!fences_.passed({use, UINT64_MAX})) return false;",
           "return false;", "alloc_test", "PerThreadStreams*"),
    mutant("a pool's filter sees the number of a thread's stream", DEVICE,
           "routes_.find(stream_handle(driver::handle_of_stream(stream)))", "routes_.find(stream_handle(stream))",
           "alloc_test", "PerThreadStreams*"),

    # Private pools.
    mutant("of nested pools the outer one has the allocation", PRIVATE_POOLS,
           "for (std::size_t i = routes_.size(); i-- > 0;) {", "for (std::size_t i = 0; i < routes_.size(); ++i) {",
           "alloc_test", "*PrivatePools*"),
    mutant("a pool is begun twice", PRIVATE_POOLS, "    if (route.id == id) return refused(id);\n", "    (void)route;\n",
           "alloc_test", "*PrivatePools*"),
    mutant("a pool that is retained has one reference", PRIVATE_POOLS, "  ++pool.references;\n",
           "  pool.references = 1;\n", "alloc_test", "*PrivatePools*"),

    # Freed memory: cleared, or unmapped.
    mutant("zeros go into the graph of a captured stream", FENCES,
           "  if (Status free = check_capture(on, Step::clear); !free.ok()) return free.error();\n", "", "alloc_test", "*ZeroOnFree*"),
    mutant("a graph that got the zeros is not noticed", FENCES,
           "code == ErrorCode::captured) return Cleared::in_a_graph;", "code == ErrorCode::captured) return Cleared::in_order;", "alloc_test",
           "*ZeroOnFree*"),
    mutant("cleared memory is another stream's before the zeros are there", CLEAR, "fence = {stream->index, ++stream->tick};\n",
           "fence = {stream->index, stream->tick};\n", "alloc_test", "*ZeroOnFree*"),
    mutant("what other streams used is not cleared", DEFERRED, "  if (waits && options_.zero_on_free && ",
           "  if (waits && false && ", "alloc_test", "*ZeroOnFree*"),
    mutant("what could not be cleared is handed out", CLEAR, "    if (!cleared || deferred->block->pool",
           "    if (deferred->block->pool", "alloc_test", "*ZeroOnFree*"),
    mutant("a request does not wait for the zeros", LADDER, "  if (clear_freed(SIZE_MAX)) wait();\n",
           "  clear_freed(SIZE_MAX);\n", "alloc_test", "*ZeroOnFree*"),
    mutant("memory that is to be cleared is lent", BORROW, "  if (options_.zero_on_free) return std::nullopt;", "  ", "alloc_test",
           "*ZeroOnFree*"),
    mutant("what a private pool leaves is not cleared", OF_STREAMS, "        withdraw_free(*pair.large);\n", "", "alloc_test",
           "*ZeroOnFree*"),
    mutant("memory is unmapped before its zeros are written", DEVICE, "  if (options_.zero_on_free) fences_.wait_for_marks();", "  ",
           "alloc_test", "*ZeroOnFree*"),
    mutant("memory of other places goes back as it is", PLACED, "    block.dirty = freeing_.zeroes && ",
           "    block.dirty = false && ", "alloc_test", "*ZeroOnFree*"),
    mutant("memory of other places is cleared on a stream that is gone", PLACED,
           "        if (freed && !contains(block->uses, stream) && block->stream == stream) block->stream.handle = 0;\n", "", "alloc_test",
           "*ZeroOnFree*"),
    mutant("freed memory stays mapped", DEVICE, "  if (freed.ok() && options_.unmap_on_free) unmap_freed();\n", "", "alloc_test",
           "UnmapOnFree*"),

    # The background worker.
    mutant("a wake that comes during a step is lost", WORKER, "    if (next != Next::idle) awake_.store(true);\n",
           "    awake_.store(next != Next::idle);\n", "alloc_background_test", "BackgroundThread.TakesAnother*"),
    mutant("the worker steps once for each free", WORKER,
           "next == Next::again ? ", "next != Next::later ? ",
           "alloc_background_test", "BackgroundThread.TakesAStep*"),
    mutant("the worker takes the program's signals", WORKER,
           "    const BlockedSignals blocked;  // the new thread inherits them\n", "", "alloc_background_test"),

    # Files out of a live allocator.
    mutant("a recording begins empty where blocks are live", RECORDER, "      device.encoder.begin(live, device.buffer);\n",
           "      device.encoder.begin({}, device.buffer);\n", "observe_test", "Recorder*"),
    mutant("events that were overwritten are not counted", RECORDER,
           "      dropped_ += part.first - std::min(part.first, device.next);\n", "", "observe_test", "Recorder*"),
    mutant("the events just before the end are not recorded", RECORDER, "      last = stopping_;\n",
           "      last = stopping_;\n      if (last) return;\n", "observe_test", "Recorder*"),
    mutant("two recorders take the history from each other", RECORDER,
           "      if (other != nullptr && other->records(work->allocator())) return false;\n", "", "observe_test",
           "Recorder*"),
    mutant("a recording ends with quick_exit", RECORDER, " || std::at_quick_exit(stop_all) != 0", "", "observe_test",
           "Recorder*"),
    mutant("a recording's checksum leaves its events out", RECORDER, "crc = observe::crc32(crc, bytes);", "(void)bytes;",
           "observe_test", "Recorder*"),
    mutant("the process-wide allocator records nothing", "src/entry/default_allocator.cpp",
           "  record(chosen, options);\n", "  (void)record;\n", "observe_test", "Recorder*"),
    mutant("a file is written where another was, and not beside it", "src/observe/output_file.cpp",
           "name = target + \".tmp.\" + std::to_string(::getpid()) + \".\" + std::to_string(next++);",
           "name = target;\n    ::unlink(name.c_str());\n    (void)next;", "observe_test"),

    # The C interface.
    mutant("a recorder's handle is good for two ends", "src/capi/files.cpp",
           "handles.remove(Kind::recorder, ", "handles.find(Kind::recorder, ", "capi_test", "CApiFiles*"),
    mutant("a recorder does not keep its allocator", "src/capi/files.cpp", "    made->allocator = object.self;\n", "",
           "capi_test", "CApiFiles*"),
    mutant("a recording that could not be written ends as if it were", "src/capi/allocator.cpp",
           "return object.recorder == nullptr ? GMLAKE_OK : outcome(object.recorder->stop(), function);",
           "return GMLAKE_OK;", "capi_test", "CApiFiles*"),
    mutant("a pool takes the streams that its filter does not choose", "src/capi/pools.cpp",
           "filter(stream, context) != 0", "filter(stream, context) == 0", "capi_test", "CApiPools*"),
    mutant("a pool is released with one of its numbers alone", "src/capi/pools.cpp",
           "return {pool.first, pool.second};", "return {pool.first, 0};", "capi_test", "CApiPools*"),
]
