"""Real training and inference jobs on one GPU, to see how an allocator fares under them. run.py runs them.

usage: jobs.py NAME [--steps N] [--hook MODULE] [--fraction F] [--record FILE.pickle.gz]
--hook imports MODULE after torch and before the GPU is first used (an allocator that installs itself on import).
--fraction limits this process to that share of the GPU's memory.
Prints one JSON line: peaks in bytes, the median step in seconds, the loss of the last step (generate: the mean size of the
logits), retries, and "OOM" where it ran out of memory.

Importing this touches no GPU: a process that has may fork, and its children run jobs (warm.py).
"""

import argparse
import contextlib
import gzip
import importlib
import json
import os
import pickle
import random
import sys

import torch

import turns


def lm(cfg_name, **over):
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, OPTConfig

    table = {
        "gpt2-xl": lambda: GPT2Config(n_embd=1600, n_layer=48, n_head=25, n_positions=2048, vocab_size=50257),
        "opt-1.3b": lambda: OPTConfig(
            hidden_size=2048,
            num_hidden_layers=24,
            num_attention_heads=32,
            ffn_dim=8192,
            vocab_size=50272,
            word_embed_proj_dim=2048,
            max_position_embeddings=4096,
        ),
        "llama-7b": lambda: LlamaConfig(
            hidden_size=4096,
            num_hidden_layers=32,
            num_attention_heads=32,
            intermediate_size=11008,
            vocab_size=32000,
            max_position_embeddings=8192,
        ),
        "llama-1b": lambda: LlamaConfig(
            hidden_size=2048,
            num_hidden_layers=16,
            num_attention_heads=32,
            num_key_value_heads=8,
            intermediate_size=8192,
            vocab_size=128256,
            max_position_embeddings=16384,
        ),
    }
    cfg = table[cfg_name]()
    for k, v in over.items():
        setattr(cfg, k, v)
    with torch.device("cuda"):
        old = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        m = AutoModelForCausalLM.from_config(cfg)
        torch.set_default_dtype(old)
    return m.to(torch.bfloat16), cfg


def lora(m, r=16, targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(m, LoraConfig(r=r, lora_alpha=32, target_modules=list(targets), lora_dropout=0.05))


def ckpt(m):
    m.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if hasattr(m, "enable_input_require_grads"):
        m.enable_input_require_grads()


def train_lm(m, cfg, batches, offload=False):
    m.train()
    params = [p for p in m.parameters() if p.requires_grad]
    if offload:  # optimizer state on the host, gradients streamed out on a side stream
        host = [torch.zeros_like(p, device="cpu") for p in params]
        side = torch.cuda.Stream()
    else:
        opt = torch.optim.AdamW(params, lr=1e-5, foreach=True)
    for b, s in batches:
        x = torch.randint(0, cfg.vocab_size, (b, s), device="cuda")
        loss = m(input_ids=x, labels=x, use_cache=False).loss
        loss.backward()
        if offload:
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for p, h in zip(params, host):
                    g = p.grad
                    h.copy_(g, non_blocking=True)
                    g.record_stream(side)
                    u = (g * -1e-5).to(p.dtype)
                    u.record_stream(torch.cuda.current_stream())
                    p.data.add_(u)
            torch.cuda.current_stream().wait_stream(side)
        else:
            opt.step()
        m.zero_grad(set_to_none=True)
        yield loss


def w_gpt2_full(steps):  # N: plain full fine-tuning, one shape
    m, c = lm("gpt2-xl")
    yield from train_lm(m, c, [(8, 1024)] * steps)


def w_opt_recompute(steps):  # R: recomputation, batch drawn from lengths
    m, c = lm("opt-1.3b")
    ckpt(m)
    r = random.Random(1)
    yield from train_lm(m, c, [(16, r.randrange(512, 2049, 64)) for _ in range(steps)])


def w_llama7b_lr(steps):  # LR: LoRA + recomputation, free lengths (no bucketing)
    m, c = lm("llama-7b")
    m = lora(m)
    ckpt(m)
    r = random.Random(2)
    yield from train_lm(m, c, [(r.choice((2, 4, 6)), r.randrange(200, 4096)) for _ in range(steps)])


def w_opt_lro(steps):  # LRO: LoRA + recomputation + offload on a side stream
    m, c = lm("opt-1.3b")
    m = lora(m, targets=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"))
    ckpt(m)
    r = random.Random(4)
    yield from train_lm(m, c, [(8, r.randrange(300, 2048)) for _ in range(steps)], offload=True)


def w_generate(steps):  # KV caches that grow token by token, batches of many lengths
    m, c = lm("llama-1b")
    m.eval()
    r = random.Random(7)
    for _ in range(steps):
        b, s, n = r.randrange(4, 33), r.randrange(100, 3000), r.randrange(20, 90)
        x = torch.randint(0, c.vocab_size, (b, s), device="cuda")
        with torch.no_grad():
            past = None
            cur = x
            for _ in range(n):
                o = m(input_ids=cur, past_key_values=past, use_cache=True, logits_to_keep=1)
                past = o.past_key_values
                cur = o.logits[:, -1:].argmax(-1)
        yield o.logits.float().abs().mean()


def w_detect(steps):  # detection on images of many sizes
    import torchvision

    m = (
        torchvision.models.detection.maskrcnn_resnet50_fpn_v2(
            weights=None, weights_backbone=None, min_size=(480, 560, 640, 720, 800, 1024), max_size=1600
        )
        .cuda()
        .train()
    )
    opt = torch.optim.SGD(m.parameters(), lr=1e-4)
    r = random.Random(9)
    for _ in range(steps):
        imgs = [torch.rand(3, r.randrange(300, 1200), r.randrange(300, 1200), device="cuda") for _ in range(6)]
        tg = []
        for im in imgs:
            k = r.randrange(1, 12)
            h, w = im.shape[1:]
            a = torch.rand(k, 2, device="cuda") * torch.tensor([w * 0.6, h * 0.6], device="cuda")
            bx = torch.cat([a, a + 20 + torch.rand(k, 2, device="cuda") * 100], 1)
            mk = torch.zeros(k, h, w, dtype=torch.uint8, device="cuda")
            mk[:, 10:100, 10:100] = 1
            tg.append(dict(boxes=bx, labels=torch.randint(1, 90, (k,), device="cuda"), masks=mk))
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = sum(m(imgs, tg).values())
        if torch.isfinite(loss):
            loss.backward()
        opt.step()
        opt.zero_grad(set_to_none=True)
        yield loss


W = {k[2:]: v for k, v in globals().items() if k.startswith("w_")}


def import_libraries():
    """All that the jobs import as they go, so that a fork has it. A job whose library is missing says so itself."""
    for name in (
        "transformers.models.gpt2.modeling_gpt2",
        "transformers.models.llama.modeling_llama",
        "transformers.models.opt.modeling_opt",
        "transformers.models.auto.modeling_auto",
        "peft",
        "torchvision.models.detection",
    ):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def report(name, label, step_seconds, loss, err):
    """What a run has to say, as one JSON line: the memory of the current device, and who it is."""
    t = step_seconds
    line = dict(
        job=name,
        alloc=label,
        steps=len(t),
        err=err,
        loss=None if loss is None else float(loss),
        step_seconds=t,
        median_step=sorted(t[2:])[len(t[2:]) // 2] if len(t) > 2 else None,
        last_half=sum(t[len(t) // 2 :]),
    )
    if torch.cuda.is_initialized():
        s = torch.cuda.memory_stats()
        free, total = torch.cuda.mem_get_info()
        line.update(
            peak_allocated=s.get("allocated_bytes.all.peak"),
            peak_requested=s.get("requested_bytes.all.peak"),
            peak_active=s.get("active_bytes.all.peak"),
            peak_reserved=s.get("reserved_bytes.all.peak"),
            device_used=total - free,
            device_total=total,
            backend=torch.cuda.get_allocator_backend(),
            allocs=s.get("allocation.all.allocated"),
            segs=s.get("segment.all.allocated"),
            retries=s.get("num_alloc_retries"),
            machine=dict(
                gpu=torch.cuda.get_device_name(),
                torch=torch.__version__,
                cuda=torch.version.cuda,
                cores=os.cpu_count(),
                python=sys.version.split()[0],
            ),
        )
        if line["backend"] == "gmlake":
            own = importlib.import_module("gmlake").memory_stats()
            line.update(driver_seconds=own["gmlake.driver_ns"] / 1e9, stitches=own["gmlake.stitches"])
    return json.dumps(line)


def main(arguments):
    ap = argparse.ArgumentParser()
    ap.add_argument("name", choices=W)
    ap.add_argument("--record")
    ap.add_argument("--steps", type=int, default=10)
    ap.add_argument("--fraction", type=float)
    ap.add_argument("--hook")
    ap.add_argument("--label", default=os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "native"))
    a = ap.parse_args(arguments)
    torch.manual_seed(0)
    random.seed(0)
    if a.hook:
        __import__(a.hook)
    if a.fraction:
        torch.cuda.set_per_process_memory_fraction(a.fraction)
    if a.record:
        torch.cuda.memory._record_memory_history(enabled="all", context=None, stacks="python", max_entries=3_000_000)
    t = []
    err = None
    loss = None
    try:
        for seconds, loss in turns.timed(W[a.name](a.steps), 1, torch.cuda.synchronize, turns.Turn(a.label)):
            t += seconds
    except torch.cuda.OutOfMemoryError:
        err = "OOM"
    print(report(a.name, a.label, t, loss, err), flush=True)
    if a.record:
        snap = torch.cuda.memory._snapshot()
        snap["device_traces"] = [
            [{k: v for k, v in e.items() if k != "frames"} for e in d] for d in snap["device_traces"]
        ]
        with gzip.open(a.record, "wb", compresslevel=6) as f:
            pickle.dump(snap, f, protocol=4)


if __name__ == "__main__":
    main(sys.argv[1:])
