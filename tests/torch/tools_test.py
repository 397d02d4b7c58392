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


def test_sharing_between_processes_says_that_it_cannot():
    x = torch.ones(1000, device="cuda")
    with pytest.raises(RuntimeError, match="share CUDA memory"):
        x.untyped_storage()._share_cuda_()


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
