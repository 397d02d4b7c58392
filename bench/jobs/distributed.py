"""Training over several GPUs, a process each, to see how an allocator fares beside NCCL. run.py runs it under torchrun.

usage: torchrun --nproc-per-node 2 bench/jobs/distributed.py ddp|fsdp [--steps N] [--ahead N] [--fraction F] [--one-gpu]
       python3 bench/jobs/distributed.py fsdp                 one process alone: NCCL with nobody to talk to
       torchrun --nproc-per-node 2 bench/jobs/distributed.py ddp --cpu    a small model over gloo, to see that it runs

ddp: DistributedDataParallel, whose buckets are a copy of all gradients. fsdp: fully_shard of every layer, whose parameters
come and go with each layer, forward and backward, on a stream of their own. Both train a decoder on batches of lengths that
change with every step, the same on each rank. With --ahead the host waits for its GPU only after so many steps, as a loop
does that seldom looks at its loss; each of these steps then has their mean as its time. With --one-gpu all ranks have the
first GPU, and NCCL takes each for a host of its own: they talk over sockets. Each rank prints one JSON line, as jobs.py
does, with its rank; the loss is the mean of all ranks' at the last step. A rank that runs out of memory says so and ends
with status 1.
"""

import argparse
import ctypes
import os
import random
import signal
import socket
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

import jobs
import turns


class Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        b, s, w = x.shape
        q, k, v = self.qkv(self.before(x)).view(b, s, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, s, w))
        return x + self.down(F.gelu(self.up(self.between(x))))


class Decoder(nn.Module):
    def __init__(self, vocabulary, width, depth, heads, longest):
        super().__init__()
        self.vocabulary = vocabulary
        self.token, self.place = nn.Embedding(vocabulary, width), nn.Embedding(longest, width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens):
        x = self.token(tokens) + self.place(torch.arange(tokens.shape[1], device=tokens.device))
        for layer in self.layers:
            x = layer(x)
        logits = self.head(self.last(x))[:, :-1]
        return F.cross_entropy(logits.reshape(-1, self.vocabulary).float(), tokens[:, 1:].reshape(-1))


def spread_out(name, model, device):
    if name == "ddp":
        return nn.parallel.DistributedDataParallel(model, device_ids=None if device.type == "cpu" else [device.index])
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def train(name, steps, device, small):
    if small:
        sizes, batch, lengths = dict(vocabulary=100, width=32, depth=2, heads=2, longest=64), 2, range(8, 65, 8)
    else:
        sizes, batch, lengths = (
            dict(vocabulary=50272, width=2048, depth=24, heads=16, longest=2048),
            8,
            range(512, 2049, 64),
        )
    torch.manual_seed(0)  # the same model on each rank
    with device:
        model = Decoder(**sizes).to(torch.float32 if small else torch.bfloat16)
    model = spread_out(name, model, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=True)
    torch.manual_seed(1 + dist.get_rank())  # and other data
    draw = random.Random(5)
    for _ in range(steps):
        loss = model(torch.randint(0, sizes["vocabulary"], (batch, draw.choice(lengths)), device=device))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        mean = loss.detach().float()
        dist.all_reduce(mean)
        yield mean / dist.get_world_size()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def alone():
    """One process that no torchrun has started is all there is."""
    if "RANK" not in os.environ:
        os.environ.update(
            RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port())
        )


def share_one_gpu():
    """NCCL refuses two ranks on one GPU of a host, and knows a host by this."""
    os.environ.update(NCCL_HOSTID=f"rank-{os.environ['RANK']}", NCCL_SOCKET_IFNAME="lo", NCCL_IB_DISABLE="1")


def end_with_torchrun():
    """Where torchrun is killed its workers would go on: it gives each a session of its own."""
    die_with_parent = 1  # PR_SET_PDEATHSIG, prctl(2)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(die_with_parent, signal.SIGKILL)


def main(arguments):
    ap = argparse.ArgumentParser()
    ap.add_argument("name", choices=("ddp", "fsdp"))
    ap.add_argument("--steps", type=int, default=10)
    ap.add_argument("--ahead", type=int, default=1)
    ap.add_argument("--fraction", type=float)
    ap.add_argument("--one-gpu", action="store_true")
    ap.add_argument("--cpu", action="store_true")
    ap.add_argument("--label", default=os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "native"))
    a = ap.parse_args(arguments)
    end_with_torchrun()
    alone()
    if a.one_gpu:
        share_one_gpu()
    device = torch.device("cpu") if a.cpu else torch.device("cuda", 0 if a.one_gpu else int(os.environ["LOCAL_RANK"]))
    if not a.cpu:
        torch.cuda.set_device(device)
        if a.fraction:
            torch.cuda.set_per_process_memory_fraction(a.fraction)
    dist.init_process_group("gloo" if a.cpu else "nccl", device_id=None if a.cpu else device)
    t, loss, err = [], None, None
    wait = (lambda: None) if a.cpu else torch.cuda.synchronize
    try:
        steps = train(a.name, a.steps, device, a.cpu)
        for seconds, loss in turns.timed(steps, a.ahead, wait, turns.Turn(a.label)):
            t += seconds
    except torch.OutOfMemoryError:
        err = "OOM"
    how = f'"rank": {dist.get_rank()}, "ahead": {a.ahead}, "one_gpu": {str(a.one_gpu).lower()}'
    line = jobs.report(a.name, a.label, t, loss, err)
    os.write(1, f"{{{how}, {line[1:]}\n".encode())  # in one piece, among the lines of other ranks
    if err is not None:
        os._exit(1)  # the others wait for this rank in vain: torchrun ends them
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
