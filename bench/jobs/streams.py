"""Jobs on two streams of one GPU that must stay side by side: what an allocator gains in memory it may not lose here.

usage: streams.py prefetch|concurrent [--steps N] [--fraction F] [--record FILE.pickle.gz]     all else as in jobs.py

prefetch: a network trains while the next batch, of 50 to 260 MB, comes from the host on a stream of its own. concurrent: two
queues of requests that have nothing to do with each other, a stream each; a request needs 0.1 to 1 GiB for a millisecond in
which it uses little of the GPU. In both the host runs ahead of the device for a whole step, of 24 batches or 600 requests.
Prints one JSON line, as jobs.py does; the loss is that of the last batch, or the sum of what the last requests computed.
"""

import random
import sys

import torch
from torch import nn

import jobs

BATCHES = 24
REQUESTS = 600
WIDTH = 4096
MILLISECOND = 1_500_000  # cycles, more or less: only that it is the same for all


def prefetch(steps):
    layers = [layer for _ in range(8) for layer in (nn.Linear(WIDTH, WIDTH), nn.GELU())]
    model = nn.Sequential(*layers).to("cuda", torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, foreach=True)
    host = torch.randn(32768, WIDTH, dtype=torch.bfloat16).pin_memory()
    side, compute = torch.cuda.Stream(), torch.cuda.current_stream()
    draw = random.Random(7)

    def fetch():
        with torch.cuda.stream(side):
            return host[: draw.randrange(6144, 32768, 1024)].to("cuda", non_blocking=True)

    batch = fetch()
    for _ in range(steps):
        for _ in range(BATCHES):
            compute.wait_stream(side)
            following = fetch()
            loss = model(batch).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            batch.record_stream(compute)
            batch = following
        yield loss.detach()


def concurrent(steps):
    streams = [torch.cuda.Stream() for _ in range(2)]
    draw = random.Random(8)
    for _ in range(steps):
        sums = []
        for i in range(REQUESTS):
            with torch.cuda.stream(streams[i % 2]):
                scratch = torch.empty(draw.randrange(1 << 27, 1 << 30, 1 << 21), dtype=torch.uint8, device="cuda")
                scratch[:1024].fill_(i % 2)
                torch.cuda._sleep(MILLISECOND)
                sums.append(scratch[:1024].sum())
                del scratch
        for stream in streams:
            torch.cuda.current_stream().wait_stream(stream)
        yield torch.stack(sums).sum()


W = {"prefetch": prefetch, "concurrent": concurrent}


if __name__ == "__main__":
    jobs.W = W
    jobs.main(sys.argv[1:])
