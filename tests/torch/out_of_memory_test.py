import gmlake
import pytest
import torch

MIB = 1 << 20


@pytest.fixture
def limited():
    """A limit of 2 GiB more than what is held."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2048 * MIB) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_the_error_is_pytorchs_in_its_words(limited):
    ooms = torch.cuda.memory_stats()["num_ooms"]
    with pytest.raises(torch.cuda.OutOfMemoryError) as caught:
        torch.empty(4096 * MIB, dtype=torch.uint8, device="cuda")
    text = str(caught.value)
    assert text.startswith("CUDA out of memory. Tried to allocate 4.00 GiB. GPU 0 has a total capacity of ")
    assert "is reserved by PyTorch but unallocated" in text and "gmlake" in text
    assert isinstance(caught.value, torch.OutOfMemoryError)
    assert torch.cuda.memory_stats()["num_ooms"] == ooms + 1


def test_it_recovers(limited):
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(4096 * MIB, dtype=torch.uint8, device="cuda")
    assert torch.ones(1024 * MIB // 4, device="cuda").sum() > 0


def test_fraction_is_read_back(limited):
    assert 0 < torch.cuda.get_per_process_memory_fraction() < 1
    with pytest.raises(ValueError):
        torch.cuda.set_per_process_memory_fraction(2.0)


def test_fragments_do_not_run_out(limited):
    pieces = [torch.empty(100 * MIB, dtype=torch.uint8, device="cuda") for _ in range(19)]
    del pieces[::2]
    torch.empty(900 * MIB, dtype=torch.uint8, device="cuda").fill_(1)


def test_observers_are_told(limited):
    told = []
    torch._C._cuda_attach_out_of_memory_observer(lambda *arguments: told.append(arguments))
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(4096 * MIB, dtype=torch.uint8, device="cuda")
    assert told and told[0][0] == 0 and told[0][1] == 4096 * MIB


def test_more_than_there_can_be():
    ooms = torch.cuda.memory_stats()["num_ooms"]
    told = []
    torch._C._cuda_attach_out_of_memory_observer(lambda *arguments: told.append(arguments))
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
    assert "Tried to allocate 1048576.00 GiB. GPU 0 has a total capacity of" in str(caught.value)
    assert [what[:2] for what in told] == [(0, 1 << 50)]
    assert torch.cuda.memory_stats()["num_ooms"] == ooms + 1


def test_a_pool_gets_what_gmlake_has_cached(limited):
    cached = torch.empty(1500 * MIB, dtype=torch.uint8, device="cuda")
    del cached
    ooms = torch.cuda.memory_stats()["num_ooms"]
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        a = torch.full((1200 * MIB,), 3, dtype=torch.uint8, device="cuda")
    assert int(a[::4096].sum()) == 3 * len(a[::4096])
    assert torch.cuda.memory_stats()["num_ooms"] == ooms


def test_what_a_pool_gave_back_is_there_again(limited):
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        a = torch.empty(1500 * MIB, dtype=torch.uint8, device="cuda")
    del a, pool
    torch.cuda.empty_cache()
    torch.empty(1900 * MIB, dtype=torch.uint8, device="cuda").fill_(1)


LIMIT = """
import torch
def take(mib):
    return torch.empty(mib << 20, dtype=torch.uint8, device="cuda")
def try_to_take(mib):
    try:
        block = take(mib)
        print("granted")
    except torch.OutOfMemoryError:
        print("refused")
pool = torch.cuda.MemPool()
a = take(600)
with torch.cuda.use_mem_pool(pool):
    try_to_take(600)
del a
with torch.cuda.use_mem_pool(pool):
    b = take(600)
try_to_take(600)
try_to_take(300)
print(torch.cuda.memory_reserved() <= 1 << 30)
"""


def test_the_option_limit_holds_for_pools_and_the_rest_together(script):
    ended = script(LIMIT, GMLAKE_CONF="limit:1GiB")
    assert ended.stdout.split() == ["refused", "refused", "granted", "True"], ended.stderr
