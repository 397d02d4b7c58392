import pytest
import torch


def test_profiler_sees_memory():
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], profile_memory=True) as seen:
        x = torch.randn(1024, 1024, device="cuda")
        y = x @ x
        del x, y
    memory = [getattr(event, "self_device_memory_usage", 0) for event in seen.key_averages()]
    assert max(memory) >= 4 * 1024 * 1024


def test_cudnn_benchmark():
    torch.backends.cudnn.benchmark = True
    try:
        layer = torch.nn.Conv2d(16, 32, 3).cuda()
        out = layer(torch.randn(8, 16, 64, 64, device="cuda"))
        out.sum().backward()
        assert out.isfinite().all()
    finally:
        torch.backends.cudnn.benchmark = False


SHARE = """
import sys
import torch
import torch.multiprocessing as mp

def child(there, back):
    whole, part = there.get()
    whole += 1
    torch.cuda.synchronize()
    back.put((whole.double().sum().item(), part.double().sum().item()))
    del whole, part
    there.get()

if __name__ == "__main__":
    spawn = mp.get_context("spawn")
    there, back = spawn.Queue(), spawn.Queue()
    process = spawn.Process(target=child, args=(there, back))
    process.start()
    fragments = [torch.empty(3 << 20, dtype=torch.uint8, device="cuda") for _ in range(40)]
    del fragments[::2]
    whole = torch.full((10 << 20,), 2.0, device="cuda")  # 40 MiB, over several PhyBlocks
    part = whole[1000:2000]
    torch.cuda.synchronize()
    there.put((whole, part))
    seen = back.get()
    there.put(None)
    process.join()
    assert process.exitcode == 0
    assert seen == (3.0 * (10 << 20), 3000.0), seen
    assert bool((whole == 3).all())
    before = torch.cuda.memory_allocated()
    del whole, part
    torch.cuda.ipc_collect()
    assert torch.cuda.memory_allocated() == before - (40 << 20)
"""


def test_tensors_are_shared_between_processes(script):
    ended = script(SHARE)
    assert ended.returncode == 0 and ended.stderr == "", ended.stderr


def test_sharing_what_is_gone_says_so():
    x = torch.ones(1000, device="cuda")
    handle = x.untyped_storage()._share_cuda_()
    name = bytes(handle[1])
    assert name.startswith(b"gmlake:1:")
    gone = (handle[0], name.replace(b":gmlake-", b":gmlake-no-"), *handle[2:-1], False)  # no event to wait for
    with pytest.raises(RuntimeError, match="cannot be reached, or has ended"):
        torch.UntypedStorage._new_shared_cuda(*gone)


TRAIN = """
import torch
model = torch.nn.Sequential(torch.nn.Linear(512, 2048), torch.nn.ReLU(), torch.nn.Linear(2048, 512)).cuda()
optimizer = torch.optim.AdamW(model.parameters())
for size in (32, 64, 48, 128):
    loss = model(torch.randn(size, 512, device="cuda")).square().mean()
    loss.backward(); optimizer.step(); optimizer.zero_grad()
    torch.cuda.Stream().synchronize()
keep = torch.ones(1000, device="cuda")
print(loss.item())
"""


def test_twenty_runs_end_clean(script):
    for _ in range(20):
        ended = script(TRAIN)
        assert ended.returncode == 0 and ended.stderr == "", ended.stderr
