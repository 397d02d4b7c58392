"""What those are told who follow segments through PyTorch's allocator trace: a tracker in C++, as NCCL's registration is."""

import subprocess

import pytest
import torch
from gmlake._adapter import build

TRACKER = """
#include <c10/cuda/CUDACachingAllocator.h>
#include <map>
#include <mutex>
using namespace c10::cuda::CUDACachingAllocator;
namespace {
std::mutex& mutex = *new std::mutex;  // never destroyed: mappings change up to the end of the process
auto& mapped = *new std::map<std::uint64_t, std::uint64_t>;  // address to its end
long long counts[4];  // mapped, unmapped, segments allocated, of another device
std::uint64_t last_stream;
void follow(const TraceEntry& entry) {
  const std::lock_guard lock(mutex);
  const std::uint64_t begin = entry.addr_;
  const std::uint64_t end = begin + entry.size_;
  if (entry.action_ == TraceEntry::SEGMENT_MAP) {
    ++counts[0];
    mapped[begin] = end;
    last_stream = reinterpret_cast<std::uint64_t>(entry.stream_);
  } else if (entry.action_ == TraceEntry::SEGMENT_UNMAP) {
    ++counts[1];
    for (auto at = mapped.begin(); at != mapped.end();) {  // the parts of each range that lie outside stay
      const auto [from, to] = *at;
      if (to <= begin || from >= end) { ++at; continue; }
      at = mapped.erase(at);
      if (from < begin) mapped[from] = begin;
      if (to > end) mapped[end] = to;
    }
  } else if (entry.action_ == TraceEntry::SEGMENT_ALLOC) {
    ++counts[2];
  }
  if (entry.device_ != 0) ++counts[3];
}
}  // namespace
extern "C" {
__attribute__((visibility("default"))) void attach() { get()->attachAllocatorTraceTracker(follow); }
__attribute__((visibility("default"))) long long count(int which) {
  const std::lock_guard lock(mutex);
  return counts[which];
}
__attribute__((visibility("default"))) std::uint64_t stream() { return last_stream; }
__attribute__((visibility("default"))) int covers(std::uint64_t begin, std::uint64_t bytes) {
  const std::lock_guard lock(mutex);
  const std::uint64_t end = begin + bytes;
  while (begin < end) {
    auto after = mapped.upper_bound(begin);
    if (after == mapped.begin()) return 0;
    const std::uint64_t to = std::prev(after)->second;
    if (to <= begin) return 0;
    begin = to;
  }
  return 1;
}
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tracker")
    source, library = folder / "tracker.cpp", folder / "tracker.so"
    source.write_text(TRACKER)
    flags = [*build.compile_flags(torch), "-shared", str(source), *build.link_flags(torch), "-o", str(library)]
    subprocess.run([*build.compiler(), *flags], check=True)
    return library


# In a process of its own: what was mapped before the tracker came, it was not told of.
PROLOGUE = """
import ctypes, sys, torch
MIB = 1 << 20
MAPPED, UNMAPPED, SEGMENTS, OF_OTHER_DEVICES = range(4)
tracker = ctypes.CDLL(LIBRARY)
tracker.count.restype = ctypes.c_longlong
tracker.stream.restype = ctypes.c_uint64
tracker.covers.argtypes = [ctypes.c_uint64, ctypes.c_uint64]
torch.cuda.init()
tracker.attach()
def take(mib):
    return torch.empty(mib * MIB, dtype=torch.uint8, device="cuda")
def covered(tensor):
    return bool(tracker.covers(tensor.data_ptr(), tensor.numel()))
"""


@pytest.fixture
def tracked(script, library):
    def run(text):
        ended = script(PROLOGUE.replace("LIBRARY", repr(str(library))) + text + '\nprint("done")\n')
        assert ended.returncode == 0 and ended.stdout == "done\n", ended.stderr

    return run


def test_a_tracker_knows_where_memory_is_mapped(tracked):
    tracked("""
pieces = [take(20) for _ in range(10)]
del pieces[::2]
whole = take(100)  # stitched of what lies free in between
assert all(map(covered, [*pieces, whole]))
assert tracker.count(MAPPED) > 0 and tracker.count(OF_OTHER_DEVICES) == 0
address = whole.data_ptr()
del whole, pieces
torch.cuda.synchronize()
torch.cuda.empty_cache()
assert tracker.count(UNMAPPED) > 0
assert not tracker.covers(address, 100 * MIB)
""")


def test_it_is_told_the_stream(tracked):
    tracked("""
first = take(64)
assert covered(first) and tracker.stream() == 0
side = torch.cuda.Stream()
with torch.cuda.stream(side):
    second = take(64)
assert covered(second) and tracker.stream() == side.cuda_stream
""")


def test_gmlakes_memory_is_no_segment_to_register_for_good(tracked):
    tracked("""
block = take(256)
assert tracker.count(SEGMENTS) == 0
pool = torch.cuda.MemPool()
with torch.cuda.use_mem_pool(pool):
    pooled = take(32)
assert tracker.count(SEGMENTS) > 0  # PyTorch's own, which stays where it is
del block, pooled
""")


def test_registration_of_everything_is_switched_off(script):
    ended = script(
        "import os, torch\ntorch.cuda.init()\nprint(os.environ['TORCH_NCCL_USE_TENSOR_REGISTER_ALLOCATOR_HOOK'])",
        TORCH_NCCL_USE_TENSOR_REGISTER_ALLOCATOR_HOOK="1",
    )
    assert ended.stdout.split() == ["0"] and "switched off" in ended.stderr, ended.stderr


ALL_REDUCE = """
import os, socket, torch, torch.distributed as dist
with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(listener.getsockname()[1]))
dist.init_process_group("nccl", device_id=torch.device("cuda", 0))
for turn in range(4):
    pieces = [torch.full((20 << 18,), 1.0, device="cuda") for _ in range(10)]
    del pieces[::2]
    whole = torch.full((100 << 18,), float(turn), device="cuda")
    dist.all_reduce(whole)
    assert bool((whole == turn).all())
    del pieces, whole
    torch.cuda.empty_cache()
dist.destroy_process_group()
print("done", torch.cuda.get_allocator_backend())
"""


@pytest.mark.parametrize("hook", ["0", "1"])
def test_nccl_uses_stitched_memory_that_comes_and_goes(script, hook):
    ended = script(ALL_REDUCE, TORCH_NCCL_USE_TENSOR_REGISTER_ALLOCATOR_HOOK=hook)
    assert ended.returncode == 0 and ended.stdout.split() == ["done", "gmlake"], ended.stderr
