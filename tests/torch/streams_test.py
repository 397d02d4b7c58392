import pytest
import torch

MIB = 1 << 20


def test_recorded_memory_is_not_reused_in_flight():
    side = torch.cuda.Stream()
    for _ in range(20):
        source = torch.full((4 * MIB,), 7, dtype=torch.uint8, device="cuda")
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            torch.cuda._sleep(20_000_000)
            copy = source.clone()
        source.record_stream(side)
        address = source.data_ptr()
        del source
        other = torch.full((4 * MIB,), 9, dtype=torch.uint8, device="cuda")
        assert other.data_ptr() != address
        side.synchronize()
        assert bool((copy == 7).all())
        del other, copy


def test_graph_capture_and_replay():
    x = torch.zeros(MIB, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            y = (x * 2 + 1).relu()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = (x * 2 + 1).relu()
    for value in (3.0, 5.0):
        churn = [torch.full((n * MIB,), 255, dtype=torch.uint8, device="cuda") for n in (1, 3, 9, 27)]
        x.fill_(value)
        graph.replay()
        torch.cuda.synchronize()
        assert bool((y == 2 * value + 1).all())
        del churn


def test_graphs_share_a_pool():
    first, second = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    x = torch.ones(1000, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.graph(first):
        y = x + 1
    with torch.cuda.graph(second, pool=first.pool()):
        z = y + 1
    first.replay()
    second.replay()
    torch.cuda.synchronize()
    assert bool((z == 3).all())


def test_mempool():
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        a = torch.full((8 * MIB,), 3, dtype=torch.uint8, device="cuda")
    b = torch.full((8 * MIB,), 4, dtype=torch.uint8, device="cuda")
    assert bool((a == 3).all()) and bool((b == 4).all())
    assert pool.use_count() >= 1
    a.record_stream(torch.cuda.Stream())
    del a


@pytest.mark.filterwarnings("ignore")
def test_compile_reduce_overhead():
    layer = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256)).cuda()
    compiled = torch.compile(layer, mode="reduce-overhead")
    x = torch.randn(64, 256, device="cuda")
    with torch.no_grad():
        for _ in range(4):
            torch.testing.assert_close(compiled(x), layer(x), rtol=1e-2, atol=1e-2)


def test_the_cache_can_be_switched_off(script):
    ended = script(
        "import torch\nx = torch.empty(10 << 20, device='cuda'); del x\nprint(torch.cuda.memory_reserved())",
        PYTORCH_NO_CUDA_MEMORY_CACHING="1",
    )
    assert ended.returncode == 0 and ended.stdout.strip() == "0", ended.stderr


def test_native_memory_of_before_is_freed_there(script):
    ended = script(
        "import torch\nold = torch.ones(1000, device='cuda')\nimport gmlake.torch\n"
        "new = torch.ones(1000, device='cuda')\nnew.record_stream(torch.cuda.Stream()); old.record_stream(torch.cuda.Stream())\n"
        "print(gmlake.torch.is_enabled(), float((old + new).sum()))\ndel old, new\ntorch.cuda.empty_cache()\n"
        "print(torch.cuda.memory_allocated())",
        lake=False,
    )
    assert ended.returncode == 0 and ended.stdout.split() == ["True", "2000.0", "0"], ended.stderr
