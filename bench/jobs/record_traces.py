"""Record allocation traces of many unlike GPU jobs, to check the allocator on jobs it was not tuned on.

usage: record_traces.py NAME [--steps N] [--seconds S] [--record FILE.pickle.gz] [--fraction F] [--hook MODULE]
       record_traces.py all --out FOLDER [--only A,B] [--deadline S] [--gib G] [--workers W]

The first form runs one job and prints one JSON line: peaks in bytes, seconds per step, retries, and "OOM" where it ran
out of memory. --seconds ends the job at the first step boundary after that time. --record writes the allocator's
history from process start, without call stacks: `torch.cuda.memory._snapshot()`, gzip + pickle.
--hook imports MODULE after torch and before the GPU is first used (an allocator that installs itself on import).

The second form records every job, each in a process of its own, several at a time while their memory fits in --gib
together. Traces are put into g0.tar, g1.tar, ... of at most 15 MiB, 62 MiB together, in FOLDER as they finish, the JSON
lines into results.jsonl. Jobs not finished after --deadline seconds are dropped. Jobs beside each other do not change
each other's allocation sequence, except for the moment at which memory used on a second stream comes free.
All of them took under 5 minutes on one H200, up to seven at a time; --seconds is 40 here unless given.

All models are built from configurations, with random weights and random data. Needs PyTorch and, for some jobs,
transformers, peft, timm, torchvision or torch_geometric. A job that fails is reported and spoils no other.
"""
import argparse, gzip, json, math, os, pickle, random, subprocess, sys, tarfile, tempfile, time
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

DEV = "cuda"
BF16 = torch.bfloat16


# ---- parts shared by the jobs ----

def lm(name, dtype=BF16, **over):
    """A causal language model of the transformers library and its configuration."""
    from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, OPTConfig
    table = {
        "gpt2-xl": lambda: GPT2Config(n_embd=1600, n_layer=48, n_head=25, n_positions=2048, vocab_size=50257),
        "opt-1.3b": lambda: OPTConfig(hidden_size=2048, num_hidden_layers=24, num_attention_heads=32, ffn_dim=8192, vocab_size=50272, word_embed_proj_dim=2048, max_position_embeddings=4096),
        "neox-1.4b": lambda: GPTNeoXConfig(hidden_size=2048, num_hidden_layers=24, num_attention_heads=16, intermediate_size=8192, vocab_size=50432, max_position_embeddings=4096),
        "llama-13b": lambda: LlamaConfig(hidden_size=5120, num_hidden_layers=40, num_attention_heads=40, intermediate_size=13824, vocab_size=32000, max_position_embeddings=4096),
        "llama-3b": lambda: LlamaConfig(hidden_size=3072, num_hidden_layers=26, num_attention_heads=24, num_key_value_heads=8, intermediate_size=8192, vocab_size=32000, max_position_embeddings=8192),
        "llama-7b": lambda: LlamaConfig(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, intermediate_size=11008, vocab_size=32000, max_position_embeddings=8192),
        "llama-1b": lambda: LlamaConfig(hidden_size=2048, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8, intermediate_size=8192, vocab_size=128256, max_position_embeddings=16384),
        "llama-900m": lambda: LlamaConfig(hidden_size=2048, num_hidden_layers=16, num_attention_heads=16, intermediate_size=5504, vocab_size=32000, max_position_embeddings=4096),
        "llama-300m": lambda: LlamaConfig(hidden_size=1024, num_hidden_layers=16, num_attention_heads=16, intermediate_size=2816, vocab_size=32000, max_position_embeddings=4096),
    }
    cfg = table[name]()
    for k, v in over.items(): setattr(cfg, k, v)
    with torch.device(DEV):
        old = torch.get_default_dtype(); torch.set_default_dtype(dtype)
        m = AutoModelForCausalLM.from_config(cfg); torch.set_default_dtype(old)
    return m.to(dtype), cfg


def lora(m):
    from peft import LoraConfig, get_peft_model
    return get_peft_model(m, LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], lora_dropout=0.05))


def recompute(m):
    m.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if hasattr(m, "enable_input_require_grads"): m.enable_input_require_grads()


def tokens(vocab, *shape): return torch.randint(0, vocab, shape, device=DEV)


def train_lm(m, cfg, batches, accumulate=1):
    """Fine-tuning over (batch size, length) pairs; `accumulate` of them make one optimizer step."""
    m.train(); opt = torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=1e-5, foreach=True)
    for i, (b, s) in enumerate(batches):
        x = tokens(cfg.vocab_size, b, s)
        loss = m(input_ids=x, labels=x, use_cache=False).loss / accumulate; loss.backward()
        if (i + 1) % accumulate == 0:
            torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
            opt.step(); opt.zero_grad(set_to_none=True); yield


class Block(nn.Module):
    """A pre-norm transformer layer; causal unless said otherwise."""
    def __init__(self, d, heads, ratio=4, causal=True):
        super().__init__(); self.h, self.causal = heads, causal
        self.n1, self.n2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.o = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, ratio * d), nn.Linear(ratio * d, d)

    def forward(self, x):
        b, s, d = x.shape
        q, k, v = self.qkv(self.n1(x)).view(b, s, 3, self.h, d // self.h).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.o(a.transpose(1, 2).reshape(b, s, d))
        return x + self.down(F.gelu(self.up(self.n2(x))))


class LM(nn.Module):
    """A plain language model."""
    def __init__(self, d, depth, heads, vocab, longest):
        super().__init__(); self.emb, self.pos = nn.Embedding(vocab, d), nn.Embedding(longest, d)
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(depth)); self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, vocab, bias=False)

    def forward(self, x):
        h = self.emb(x) + self.pos(torch.arange(x.shape[1], device=x.device))
        for b in self.blocks: h = b(h)
        return self.head(self.norm(h))


def build(f, dtype=torch.float32): return f().to(DEV, dtype)


def pinned(*shape, dtype=torch.float32): return torch.empty(*shape, dtype=dtype, pin_memory=DEV == "cuda")


# ---- language models ----

def w_opt_full(steps):
    """OPT-1.3B, full fine-tuning without recomputation, free lengths and batch sizes."""
    m, c = lm("opt-1.3b"); r = random.Random(11); yield from train_lm(m, c, [(r.randrange(2, 9), r.randrange(64, 1200)) for _ in range(steps)])


def w_gpt2_accum(steps):
    """GPT-2 XL, full, four micro-batches of free shapes for each optimizer step."""
    m, c = lm("gpt2-xl"); r = random.Random(12); yield from train_lm(m, c, [(r.randrange(1, 6), r.randrange(100, 1024)) for _ in range(4 * steps)], accumulate=4)


def w_llama1b_long(steps):
    """Llama-1B shape, full, recomputation, one long sequence a step."""
    m, c = lm("llama-1b"); recompute(m); r = random.Random(13); yield from train_lm(m, c, [(1, r.randrange(1500, 12000)) for _ in range(steps)])


def w_llama7b_lora(steps):
    """Llama-7B shape, LoRA without recomputation, small batches of free lengths."""
    m, c = lm("llama-7b"); m = lora(m); r = random.Random(14)
    yield from train_lm(m, c, [(r.choice((1, 2)), r.randrange(80, 850)) for _ in range(steps)])


def w_llama13b_lr(steps):
    """Llama-13B shape, LoRA + recomputation, free lengths."""
    m, c = lm("llama-13b"); m = lora(m); recompute(m); r = random.Random(24); yield from train_lm(m, c, [(r.choice((1, 2, 4)), r.randrange(150, 2500)) for _ in range(steps)])


def w_llama3b_full(steps):
    """Llama-3B shape, full fine-tuning without recomputation, free lengths and batch sizes."""
    m, c = lm("llama-3b"); r = random.Random(25); yield from train_lm(m, c, [(r.randrange(1, 8), r.randrange(100, 1300)) for _ in range(steps)])


def w_neox_ro(steps):
    """GPT-NeoX-1.4B shape, full, recomputation; gradients leave and updates are made on a side stream."""
    m, c = lm("neox-1.4b"); recompute(m); m.train(); r = random.Random(26); ps = list(m.parameters()); host = [pinned(*p.shape, dtype=BF16) for p in ps]; side, cur = torch.cuda.Stream(), torch.cuda.current_stream()
    for _ in range(steps):
        x = tokens(c.vocab_size, r.randrange(4, 17), r.randrange(200, 1800)); m(input_ids=x, labels=x, use_cache=False).loss.backward(); side.wait_stream(cur)
        with torch.cuda.stream(side):
            for p, h in zip(ps, host):
                g = p.grad; p.grad = None; h.copy_(g, non_blocking=True); g.record_stream(side); u = g.float().mul_(-1e-5); p.data.add_(u.to(p.dtype))
            del g, u
        cur.wait_stream(side); yield


def w_dpo(steps):
    """Preference tuning: a policy and a frozen reference score chosen and rejected answers of free length together."""
    m, c = lm("llama-1b"); ref, _ = lm("llama-1b"); ref.eval(); m.train(); opt = torch.optim.AdamW(m.parameters(), lr=1e-6, foreach=True); r = random.Random(27)
    for _ in range(steps):
        b, s = r.randrange(1, 4), r.randrange(100, 1000); x = tokens(c.vocab_size, 2 * b, s)
        score = lambda m: F.log_softmax(m(input_ids=x, use_cache=False).logits[:, :-1].float(), -1).gather(-1, x[:, 1:, None])[..., 0].sum(-1)
        with torch.no_grad(): base = score(ref)
        d = score(m) - base; loss = -F.logsigmoid(0.1 * (d[:b] - d[b:])).mean(); del d; loss.backward(); opt.step(); opt.zero_grad(set_to_none=True); yield


def w_grow(steps, d=1024, depth=24, vocab=50257, base=2, longest=1024):
    """A 350M model in mixed precision whose batch size and length grow step by step."""
    m = build(lambda: LM(d, depth, 16, vocab, longest)); opt = torch.optim.AdamW(m.parameters(), lr=1e-4, foreach=True)
    for i in range(steps):
        b, s = base + i, min(longest, longest // 4 + 64 * (i // 2)); x = tokens(vocab, b, s)
        with torch.autocast(DEV, dtype=BF16): loss = F.cross_entropy(m(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
        loss.backward(); opt.step(); opt.zero_grad(set_to_none=True); yield


class MoE(nn.Module):
    """A feed-forward layer of experts; each token goes to two of them, so an expert's batch has any size."""
    def __init__(self, d, f, experts):
        super().__init__(); self.router = nn.Linear(d, experts, bias=False)
        self.experts = nn.ModuleList(nn.ModuleDict(dict(g=nn.Linear(d, f, bias=False), u=nn.Linear(d, f, bias=False), o=nn.Linear(f, d, bias=False))) for _ in range(experts))

    def forward(self, x, skew):
        b, s, d = x.shape; x = x.reshape(-1, d); p = F.softmax(self.router(x).float() + skew, -1); w, e = p.topk(2, -1); w = (w / w.sum(-1, keepdim=True)).to(x.dtype)
        y = torch.zeros_like(x)
        for i, m in enumerate(self.experts):
            t, k = torch.where(e == i)
            if t.numel() == 0: continue
            z = x[t]; z = m["o"](F.silu(m["g"](z)) * m["u"](z)) * w[t, k, None]
            y = y.index_add(0, t, z)
        return y.view(b, s, d), (p.mean(0) * p.shape[-1]).square().mean()


class MoEBlock(nn.Module):
    def __init__(self, d, heads, f, experts):
        super().__init__(); self.b = Block(d, heads, 1); self.n, self.moe = nn.LayerNorm(d), MoE(d, f, experts)

    def forward(self, x, skew):
        x = self.b(x); y, aux = self.moe(self.n(x), skew); return x + y, aux


def w_moe(steps, d=1024, depth=12, f=2048, experts=16, vocab=32000, size=12000):
    """A mixture of experts whose routing drifts, so expert batches change from step to step and layer to layer."""
    emb, head = build(lambda: nn.Embedding(vocab, d), BF16), build(lambda: nn.Linear(d, vocab, bias=False), BF16)
    ls = build(lambda: nn.ModuleList(MoEBlock(d, 16, f, experts) for _ in range(depth)), BF16); r = random.Random(16)
    ps = [*emb.parameters(), *head.parameters(), *ls.parameters()]; opt = torch.optim.AdamW(ps, lr=1e-4, foreach=True)
    for _ in range(steps):
        s = r.randrange(100, 2000); b = max(1, r.randrange(size // 4, size) // s); x = tokens(vocab, b, s); h = emb(x); aux = 0
        for l in ls: h, a = l(h, 0.7 * torch.randn(experts, device=DEV)); aux = aux + a
        loss = F.cross_entropy(head(h).flatten(0, 1).float(), x.flatten()) + 0.01 * aux; del h
        loss.backward(); del loss, aux, a; opt.step(); opt.zero_grad(set_to_none=True); yield


def w_t5_mix(steps):
    """T5-large shape, sequence to sequence at free lengths; every third step also decodes a batch by beam search."""
    from transformers import T5Config, T5ForConditionalGeneration
    c = T5Config(d_model=1024, d_ff=2816, num_layers=24, num_decoder_layers=24, num_heads=16, feed_forward_proj="gated-gelu"); c.decoder_start_token_id = 0
    with torch.device(DEV): m = T5ForConditionalGeneration(c)
    m = m.to(BF16); m.generation_config.decoder_start_token_id = 0; m.generation_config.pad_token_id = 0
    opt = torch.optim.AdamW(m.parameters(), lr=1e-5, foreach=True); r = random.Random(17)
    for i in range(steps):
        m.train(); b, s, t = r.randrange(4, 17), r.randrange(50, 600), r.randrange(20, 300); x = tokens(32000, b, s)
        mask = (torch.arange(s, device=DEV)[None] < torch.randint(s // 2, s + 1, (b, 1), device=DEV)).long()
        m(input_ids=x, attention_mask=mask, labels=tokens(32000, b, t)).loss.backward(); opt.step(); opt.zero_grad(set_to_none=True)
        if i % 3 == 2:
            m.eval()
            with torch.no_grad(): m.generate(input_ids=tokens(32000, r.randrange(8, 25), r.randrange(50, 500)), num_beams=4, min_new_tokens=10, max_new_tokens=r.randrange(15, 40))
        yield


def w_rlhf(steps):
    """Two phases in one process: sampling with a growing KV cache, then PPO updates of an actor and a critic."""
    actor, c = lm("llama-900m"); ref, _ = lm("llama-900m"); critic, _ = lm("llama-300m"); reward, _ = lm("llama-300m"); r = random.Random(18)
    heads = [nn.Linear(1024, 1).to(DEV, BF16) for _ in range(2)]
    for p in [*ref.parameters(), *reward.parameters()]: p.requires_grad_(False)
    oa = torch.optim.AdamW(actor.parameters(), lr=1e-6, foreach=True); oc = torch.optim.AdamW([*critic.parameters(), *heads[0].parameters()], lr=1e-6, foreach=True)
    logp = lambda m, x: F.log_softmax(m(input_ids=x, use_cache=False).logits[:, :-1].float(), -1).gather(-1, x[:, 1:, None])[..., 0]
    value = lambda m, h, x: h(m.model(input_ids=x, use_cache=False).last_hidden_state)[..., 0].float()
    for _ in range(steps):
        b, s, n = r.randrange(8, 41), r.randrange(50, 500), r.randrange(16, 64); x = tokens(c.vocab_size, b, s)
        with torch.no_grad():
            past = None; cur = x
            for _ in range(n):
                o = actor(input_ids=cur, past_key_values=past, use_cache=True, logits_to_keep=1); past = o.past_key_values
                cur = torch.multinomial(F.softmax(o.logits[:, -1].float(), -1), 1); x = torch.cat([x, cur], 1)
            del past, o
            old, base, score, v0 = logp(actor, x), logp(ref, x), value(reward, heads[1], x)[:, -1], value(critic, heads[0], x)
            adv = score[:, None] - 0.1 * (old - base) - v0[:, :-1]
        for idx in torch.randperm(b, device=DEV).split(8):
            lp = logp(actor, x[idx]); ratio = (lp - old[idx]).exp(); loss = -torch.min(ratio * adv[idx], ratio.clamp(.8, 1.2) * adv[idx]).mean(); loss.backward(); oa.step(); oa.zero_grad(set_to_none=True)
            v = value(critic, heads[0], x[idx]); (v[:, :-1] - adv[idx] - v0[idx, :-1]).square().mean().backward(); oc.step(); oc.zero_grad(set_to_none=True)
        yield


def w_serve(steps, layers=8, d=4096, heads=32, slots=24, vocab=32000, longest=12000, ticks=12):
    """Continuous batching: sequences start and end at random times, each with caches of its own that grow by a token."""
    torch.backends.cuda.enable_cudnn_sdp(False)  # its plans are made anew for each length, which takes long
    hd = d // heads; r = random.Random(19); emb = build(lambda: nn.Embedding(vocab, d), BF16); head = build(lambda: nn.Linear(d, vocab, bias=False), BF16)
    ls = build(lambda: nn.ModuleList(Block(d, heads) for _ in range(layers)), BF16); live = []
    with torch.no_grad():
        for _ in range(steps):
            for _ in range(ticks):
                for _ in range(r.choice((0, 0, 1, 1, 2))):
                    if len(live) == slots: break
                    s = min(longest, int(r.lognormvariate(7.2, 1.0)) + 16); x = emb(tokens(vocab, 1, s)); kv = []
                    for l in ls:  # the prompt
                        q, k, v = l.qkv(l.n1(x)).view(s, 3, heads, hd).permute(1, 2, 0, 3)
                        x = x + l.o(F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0].transpose(0, 1).reshape(1, s, d)); x = x + l.down(F.gelu(l.up(l.n2(x)))); kv.append((k.contiguous(), v.contiguous()))
                    live.append([kv, r.randrange(8, 160), head(x[:, -1]).argmax(-1)])
                if not live: continue
                x = emb(torch.cat([q[2] for q in live]))
                for i, l in enumerate(ls):  # one token of each live sequence
                    qkv = l.qkv(l.n1(x)).view(len(live), 3, heads, 1, hd); out = []
                    for j, seq in enumerate(live):
                        q, k, v = qkv[j]; k, v = torch.cat([seq[0][i][0], k], 1), torch.cat([seq[0][i][1], v], 1); seq[0][i] = (k, v)
                        out.append(F.scaled_dot_product_attention(q[None], k[None], v[None]).view(1, d))
                    x = x + l.o(torch.cat(out)); x = x + l.down(F.gelu(l.up(l.n2(x))))
                nxt = head(x).argmax(-1)
                for j, seq in enumerate(live): seq[1] -= 1; seq[2] = nxt[j:j + 1]
                live = [q for q in live if q[1] > 0]
            yield


# ---- second streams ----

def w_stream_offload(steps, d=4096, depth=20, heads=32, vocab=32000, size=(3000, 14000)):
    """Weights on the host: each layer's are fetched on one stream ahead of use, gradients leave on another."""
    from torch.func import functional_call
    layer = build(lambda: Block(d, heads), BF16); r = random.Random(21); emb = build(lambda: nn.Embedding(vocab, d), BF16); head = build(lambda: nn.Linear(d, vocab, bias=False), BF16)
    opt = torch.optim.AdamW([*emb.parameters(), *head.parameters()], lr=1e-5); shapes = {n: p.shape for n, p in layer.named_parameters()}
    host = {n: pinned(*s, dtype=BF16).fill_(0.001) for n, s in shapes.items()}; sink = {n: pinned(*s) for n, s in shapes.items()}  # every layer shares them: their values do not matter
    layer = layer.to("meta"); pre, off, cur = torch.cuda.Stream(), torch.cuda.Stream(), torch.cuda.current_stream()

    def fetch(grad):
        with torch.cuda.stream(pre):
            w = {n: torch.empty(s, dtype=BF16, device=DEV) for n, s in shapes.items()}
            for n, t in w.items(): t.copy_(host[n], non_blocking=True); t.requires_grad_(grad)
            e = torch.cuda.Event(); e.record(pre)
        return w, e

    def arrive(we):
        w, e = we; cur.wait_event(e)
        for t in w.values(): t.record_stream(cur)
        return w

    for _ in range(steps):
        s = r.randrange(200, 4000); b = max(1, r.randrange(*size) // s); x = tokens(vocab, b, s); h0 = emb(x); h = h0.detach(); kept = []
        nxt = fetch(False)
        for i in range(depth):
            w = arrive(nxt); nxt = fetch(False) if i < depth - 1 else None; kept.append(h)
            with torch.no_grad(): h = functional_call(layer, w, (h,))
        del w
        h = h.requires_grad_(); F.cross_entropy(head(h).flatten(0, 1).float(), x.flatten()).backward(); g = h.grad; del h
        nxt = fetch(True)
        for i in range(depth):
            w = arrive(nxt); nxt = fetch(True) if i < depth - 1 else None
            y = kept.pop().detach().requires_grad_(); gs = torch.autograd.grad(functional_call(layer, w, (y,)), [y, *w.values()], g); g = gs[0]; off.wait_stream(cur)
            with torch.cuda.stream(off):
                for n, t in zip(shapes, gs[1:]): u = t.float(); t.record_stream(off); sink[n].copy_(u, non_blocking=True)
            del gs, y, w, t, u
        h0.backward(g); del h0, g; cur.wait_stream(off); opt.step(); opt.zero_grad(set_to_none=True); yield


def w_two_towers(steps, vd=1280, vdepth=24, td=1024, tdepth=16, vocab=49408, size=9000):
    """A contrastive pair of towers, images on a side stream and text on the main one, forward and backward."""
    vis = build(lambda: nn.Sequential(nn.Linear(588, vd), *(Block(vd, 16, causal=False) for _ in range(vdepth)), nn.LayerNorm(vd), nn.Linear(vd, 512)), BF16)
    txt = build(lambda: LM(td, tdepth, 16, 512, 128), BF16); txt.emb = build(lambda: nn.Embedding(vocab, td), BF16); r = random.Random(22)
    opt = torch.optim.AdamW([*vis.parameters(), *txt.parameters()], lr=1e-5, foreach=True); side, cur = torch.cuda.Stream(), torch.cuda.current_stream()
    for _ in range(steps):
        n = r.randrange(9, 25) ** 2; b = max(8, r.randrange(size // 4, size) // n); side.wait_stream(cur)
        with torch.cuda.stream(side): f = F.normalize(vis(torch.randn(b, n, 588, device=DEV, dtype=BF16)).mean(1), dim=-1)
        g = F.normalize(txt(tokens(vocab, b, r.randrange(12, 128)))[:, -1], dim=-1); cur.wait_stream(side); f.record_stream(cur)
        logits = (f @ g.T).float() * 14; y = torch.arange(b, device=DEV); loss = F.cross_entropy(logits, y) + F.cross_entropy(logits.T, y)
        loss.backward(); del f, g, logits, loss; cur.wait_stream(side); opt.step(); opt.zero_grad(set_to_none=True); yield


def w_fsdp(steps):
    """Llama-1B shape under fully_shard: gathered weights, reduced gradients and their streams as in a sharded job."""
    import torch.distributed as dist
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    torch.cuda.set_device(0); dist.init_process_group("nccl", init_method="file://" + tempfile.mktemp(), rank=0, world_size=1)
    m, c = lm("llama-1b", torch.float32); mp = MixedPrecisionPolicy(param_dtype=BF16, reduce_dtype=torch.float32); r = random.Random(23)
    for l in m.model.layers: fully_shard(l, mp_policy=mp)
    fully_shard(m, mp_policy=mp)
    yield from train_lm(m, c, [(r.randrange(1, 5), r.randrange(100, 1100)) for _ in range(steps)])


# ---- vision ----

def w_vit_mix(steps):
    """ViT-L in mixed precision at random resolutions; every third step is followed by a larger evaluation batch."""
    import timm
    m = timm.create_model("vit_large_patch16_224", pretrained=False, dynamic_img_size=True, num_classes=1000).to(DEV); opt = torch.optim.AdamW(m.parameters(), lr=1e-4, foreach=True); r = random.Random(31)
    for i in range(steps):
        s = 16 * r.randrange(8, 33); b = max(2, r.randrange(6000, 20000) // (s // 16) ** 2); m.train()
        with torch.autocast(DEV, dtype=BF16): loss = F.cross_entropy(m(torch.randn(b, 3, s, s, device=DEV)).float(), tokens(1000, b))
        loss.backward(); opt.step(); opt.zero_grad(set_to_none=True)
        if i % 3 == 2:
            m.eval()
            with torch.no_grad(), torch.autocast(DEV, dtype=BF16):
                for _ in range(3): m(torch.randn(4 * b, 3, s, s, device=DEV)).argmax(-1)
        yield


def w_resnet_prefetch(steps):
    """ResNet-152 in half precision; the next batch, of another size, is made ready on a copy stream."""
    import torchvision
    m = torchvision.models.resnet152(weights=None).to(DEV, memory_format=torch.channels_last).train(); opt = torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9); scaler = torch.amp.GradScaler(DEV); r = random.Random(32); copy, cur = torch.cuda.Stream(), torch.cuda.current_stream()

    def load():
        b, h, w = r.randrange(24, 97), 32 * r.randrange(5, 10), 32 * r.randrange(5, 10); raw = pinned(b, h, w, 3, dtype=torch.uint8)
        with torch.cuda.stream(copy): x = raw.to(DEV, non_blocking=True).permute(0, 3, 1, 2).float().div_(255).sub_(0.5); x = x * (1 + 0.1 * torch.rand_like(x)); y = tokens(1000, b)
        return x, y

    nxt = load()
    for _ in range(steps):
        cur.wait_stream(copy); x, y = nxt; x.record_stream(cur); y.record_stream(cur); nxt = load()
        with torch.autocast(DEV, dtype=torch.float16): loss = F.cross_entropy(m(x.contiguous(memory_format=torch.channels_last)), y, label_smoothing=0.1)
        scaler.scale(loss).backward(); scaler.step(opt); scaler.update(); opt.zero_grad(set_to_none=True); yield


def w_detect_infer(steps):
    """Faster R-CNN, inference on batches of images of many sizes."""
    import torchvision
    m = torchvision.models.detection.fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, box_score_thresh=0.012, min_size=800, max_size=1600).to(DEV).eval(); r = random.Random(33)
    for _ in range(steps):
        with torch.no_grad(): m([torch.rand(3, r.randrange(200, 1400), r.randrange(200, 1400), device=DEV) for _ in range(r.randrange(1, 11))])
        yield


def w_segment(steps):
    """DeepLabV3 in mixed precision on crops of free size, with full-size logits."""
    import torchvision
    m = torchvision.models.segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=150, aux_loss=True).to(DEV).train(); opt = torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9); r = random.Random(34)
    for _ in range(steps):
        h, w = r.randrange(200, 900), r.randrange(200, 900); b = max(2, min(16, r.randrange(800_000, 3_000_000) // (h * w))); x, y = torch.randn(b, 3, h, w, device=DEV), tokens(150, b, h, w)
        with torch.autocast(DEV, dtype=BF16): o = m(x); loss = F.cross_entropy(o["out"].float(), y) + 0.4 * F.cross_entropy(o["aux"].float(), y)
        del o; loss.backward(); opt.step(); opt.zero_grad(set_to_none=True); yield


def w_video(steps):
    """A 3D ResNet in mixed precision on clips of free length and size."""
    import torchvision
    m = torchvision.models.video.r2plus1d_18(weights=None, num_classes=400).to(DEV).train(); opt = torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9); r = random.Random(35)
    for _ in range(steps):
        t, h, w = r.randrange(8, 41), 8 * r.randrange(12, 25), 8 * r.randrange(12, 25); b = max(2, min(24, r.randrange(2_000_000, 10_000_000) // (t * h * w)))
        with torch.autocast(DEV, dtype=BF16): loss = F.cross_entropy(m(torch.randn(b, 3, t, h, w, device=DEV)), tokens(400, b))
        loss.backward(); opt.step(); opt.zero_grad(set_to_none=True); yield


class Res(nn.Module):
    def __init__(self, i, o, t):
        super().__init__(); self.n1, self.c1, self.t, self.n2, self.c2 = nn.GroupNorm(8, i), nn.Conv2d(i, o, 3, 1, 1), nn.Linear(t, o), nn.GroupNorm(8, o), nn.Conv2d(o, o, 3, 1, 1); self.skip = nn.Conv2d(i, o, 1) if i != o else nn.Identity()

    def forward(self, x, t): return self.skip(x) + self.c2(F.silu(self.n2(self.c1(F.silu(self.n1(x))) + self.t(t)[:, :, None, None])))


class Attend(nn.Module):
    """Self-attention over the pixels, then attention to the text."""
    def __init__(self, c, ctx, heads=8):
        super().__init__(); self.h, self.n, self.qkv, self.q, self.kv, self.o1, self.o2 = heads, nn.GroupNorm(8, c), nn.Linear(c, 3 * c), nn.Linear(c, c), nn.Linear(ctx, 2 * c), nn.Linear(c, c), nn.Linear(c, c)

    def forward(self, x, ctx):
        b, c, h, w = x.shape; sp = lambda t: t.view(b, -1, self.h, c // self.h).transpose(1, 2); un = lambda t: t.transpose(1, 2).reshape(b, -1, c)
        y = self.n(x).flatten(2).transpose(1, 2); q, k, v = self.qkv(y).chunk(3, -1); y = y + self.o1(un(F.scaled_dot_product_attention(sp(q), sp(k), sp(v))))
        k, v = self.kv(ctx).chunk(2, -1); y = y + self.o2(un(F.scaled_dot_product_attention(sp(self.q(y)), sp(k), sp(v)))); return x + y.transpose(1, 2).view(b, c, h, w)


class UNet(nn.Module):
    def __init__(self, c, mult, t, ctx):
        super().__init__(); cs = [c * k for k in mult]; self.t, self.emb, self.i = nn.Linear(128, t), nn.Linear(t, t), nn.Conv2d(4, c, 3, 1, 1)
        self.down, self.pool = nn.ModuleList(), nn.ModuleList(); self.up, self.unpool = nn.ModuleList(), nn.ModuleList(); prev = c; skips = []
        for n, k in enumerate(cs):
            for _ in range(2): self.down.append(nn.ModuleList([Res(prev, k, t), Attend(k, ctx) if n else nn.Identity()])); prev = k; skips.append(k)
            self.pool.append(nn.Conv2d(k, k, 3, 2, 1) if n < len(cs) - 1 else nn.Identity())
        self.mid = nn.ModuleList([Res(prev, prev, t), Attend(prev, ctx), Res(prev, prev, t)])
        for n, k in reversed(list(enumerate(cs))):
            for _ in range(2): self.up.append(nn.ModuleList([Res(prev + skips.pop(), k, t), Attend(k, ctx) if n else nn.Identity()])); prev = k
            self.unpool.append(nn.Conv2d(k, k, 3, 1, 1) if n else nn.Identity())
        self.o = nn.Sequential(nn.GroupNorm(8, prev), nn.SiLU(), nn.Conv2d(prev, 4, 3, 1, 1))

    def forward(self, x, t, ctx):
        f = t[:, None].float() * torch.exp(-torch.arange(64, device=x.device) / 8); t = self.emb(F.silu(self.t(torch.cat([f.sin(), f.cos()], 1)))); x = self.i(x); s = []
        at = lambda a, x: a(x, ctx) if isinstance(a, Attend) else a(x)
        for n, p in enumerate(self.pool):
            for b in self.down[2 * n:2 * n + 2]: x = at(b[1], b[0](x, t)); s.append(x)
            x = p(x)
        x = self.mid[2](self.mid[1](self.mid[0](x, t), ctx), t)
        for n, u in enumerate(self.unpool):
            for b in self.up[2 * n:2 * n + 2]: x = at(b[1], b[0](torch.cat([x, s.pop()], 1), t))
            if n < len(self.unpool) - 1: x = u(F.interpolate(x, scale_factor=2, mode="nearest"))
        return self.o(x)


def w_unet(steps, c=256, mult=(1, 2, 3, 4), pixels=150000):
    """Latent diffusion at many aspect ratios in mixed precision, with a moving average of the weights."""
    m = build(lambda: UNet(c, mult, 4 * c, 768)); ema = [p.detach().clone() for p in m.parameters()]; opt = torch.optim.AdamW(m.parameters(), lr=1e-4, foreach=True); r = random.Random(36)
    for _ in range(steps):
        h, w = 8 * r.randrange(4, 17), 8 * r.randrange(4, 17); b = max(1, min(64, r.randrange(pixels // 3, pixels) // (h * w))); x, e = torch.randn(b, 4, h, w, device=DEV), torch.randn(b, 4, h, w, device=DEV); t = torch.rand(b, device=DEV)
        with torch.autocast(DEV, dtype=BF16): loss = F.mse_loss(m(x * (1 - t[:, None, None, None]) + e * t[:, None, None, None], 1000 * t, torch.randn(b, r.randrange(20, 150), 768, device=DEV)).float(), e)
        loss.backward(); torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0); opt.step(); opt.zero_grad(set_to_none=True); torch._foreach_mul_(ema, 0.999); torch._foreach_add_(ema, [p.detach() for p in m.parameters()], alpha=0.001); yield


def w_gan(steps, top=512, widest=512, size=5_000_000):
    """A GAN whose resolution doubles in stages, with a gradient penalty (second derivatives) every other step."""
    ch = lambda res: min(widest, widest * 32 // res); r = random.Random(37); lv = [2 ** k for k in range(3, int(math.log2(top)) + 1)]; act = nn.LeakyReLU(0.2)
    G = nn.ModuleDict({str(s): nn.Sequential(nn.Conv2d(ch(s // 2), ch(s), 3, 1, 1), act, nn.Conv2d(ch(s), ch(s), 3, 1, 1), act) for s in lv}).to(DEV); D = nn.ModuleDict({str(s): nn.Sequential(nn.Conv2d(ch(s), ch(s), 3, 1, 1), act, nn.Conv2d(ch(s), ch(s // 2), 3, 1, 1), act) for s in lv}).to(DEV)
    rgb = nn.ModuleDict({str(s): nn.Conv2d(ch(s), 3, 1) for s in lv}).to(DEV); frm = nn.ModuleDict({str(s): nn.Conv2d(3, ch(s), 1) for s in lv}).to(DEV); z0, out = nn.Linear(256, ch(4) * 16).to(DEV), nn.Linear(ch(4) * 16, 1).to(DEV)
    og = torch.optim.Adam([*G.parameters(), *rgb.parameters(), *z0.parameters()], lr=1e-3); od = torch.optim.Adam([*D.parameters(), *frm.parameters(), *out.parameters()], lr=1e-3)

    def gen(b, s):
        x = z0(torch.randn(b, 256, device=DEV)).view(b, -1, 4, 4)
        for k in lv[:lv.index(s) + 1]: x = G[str(k)](F.interpolate(x, scale_factor=2, mode="nearest"))
        return rgb[str(s)](x)

    def dis(x, s):
        x = act(frm[str(s)](x))
        for k in reversed(lv[:lv.index(s) + 1]): x = F.avg_pool2d(D[str(k)](x), 2)
        return out(x.flatten(1))

    for i in range(steps):
        s = lv[min(len(lv) - 1, 1 + i * (len(lv) - 1) // steps)]; b = max(4, min(64, r.randrange(size // 3, size) // (s * s)))
        with torch.no_grad(): fake = gen(b, s)
        real = torch.randn(b, 3, s, s, device=DEV, requires_grad=i % 2 == 0); dr = dis(real, s); loss = F.softplus(-dr).mean() + F.softplus(dis(fake, s)).mean()
        if i % 2 == 0: loss = loss + 5 * torch.autograd.grad(dr.sum(), real, create_graph=True)[0].square().sum((1, 2, 3)).mean()
        loss.backward(); del dr, loss, real; od.step(); od.zero_grad(set_to_none=True)
        F.softplus(-dis(gen(b, s), s)).mean().backward(); og.step(); og.zero_grad(set_to_none=True); od.zero_grad(set_to_none=True); yield


# ---- speech, graphs, science, recommendation ----

def w_wav2vec(steps):
    """Wav2Vec2-large with a CTC loss in mixed precision, on raw audio of free length."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model
    c = Wav2Vec2Config(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True, apply_spec_augment=False)
    with torch.device(DEV): m, head = Wav2Vec2Model(c), nn.Linear(1024, 40)
    m.train(); ps = [*m.parameters(), *head.parameters()]; opt = torch.optim.AdamW(ps, lr=1e-5, foreach=True); r = random.Random(41)
    for _ in range(steps):
        b, n = r.randrange(3, 11), r.randrange(30_000, 260_000)
        with torch.autocast(DEV, dtype=BF16): y = head(m(torch.randn(b, n, device=DEV)).last_hidden_state)
        p = F.log_softmax(y.float(), -1).transpose(0, 1); t = p.shape[0]; k = r.randrange(5, max(6, t // 4))
        loss = F.ctc_loss(p, torch.randint(1, 40, (b, k), device=DEV), torch.full((b,), t, dtype=torch.long), torch.full((b,), k, dtype=torch.long), zero_infinity=True); del y, p
        loss.backward(); opt.step(); opt.zero_grad(set_to_none=True); yield


def w_transducer(steps, d=1024, depth=5, vocab=1024, feats=80):
    """A speech transducer: recurrent encoder and predictor, and a joint tensor of time x labels x vocabulary."""
    enc = nn.LSTM(4 * feats, d, depth, batch_first=True).to(DEV); emb = nn.Embedding(vocab, 512).to(DEV); pred = nn.LSTM(512, 640, 2, batch_first=True).to(DEV); je, jp, jo = (nn.Linear(*s).to(DEV) for s in ((d, 640), (640, 640), (640, vocab)))
    opt = torch.optim.Adam([p for m in (enc, emb, pred, je, jp, jo) for p in m.parameters()], lr=1e-4); r = random.Random(42)
    for _ in range(steps):
        b, t, u = r.randrange(4, 17), r.randrange(50, 400), r.randrange(8, 80); x, y = torch.randn(b, 4 * t, feats, device=DEV).view(b, t, 4 * feats), tokens(vocab, b, u)
        with torch.autocast(DEV, dtype=BF16):
            h, g = enc(x)[0], pred(emb(y))[0]; j = jo(torch.tanh(je(h)[:, :, None] + jp(g)[:, None]))
        p = F.log_softmax(j.float(), -1); del j
        loss = -torch.logsumexp(p[..., 0].mean(1) + p.gather(-1, y[:, None, :, None].expand(b, t, u, 1))[..., 0].mean(1), -1).mean(); del p
        loss.backward(); opt.step(); opt.zero_grad(set_to_none=True); yield


def w_gnn(steps):
    """Graph attention on random graphs of free size."""
    from torch_geometric.nn import GATv2Conv
    ls = nn.ModuleList(GATv2Conv(128 if i == 0 else 256, 64, heads=4) for i in range(4)).to(DEV); out = nn.Linear(256, 40).to(DEV); opt = torch.optim.AdamW([*ls.parameters(), *out.parameters()], lr=1e-3); r = random.Random(43)
    for i in range(steps):
        n = int(10 ** r.uniform(3.7, 5.4)); e = int(n * r.uniform(3, 9)); ei = torch.randint(0, n, (2, e), device=DEV); h = torch.randn(n, 128, device=DEV)
        for l in ls: h = F.dropout(F.elu(l(h, ei)), 0.2)
        sel = torch.rand(n, device=DEV).lt(0.3).nonzero()[:, 0]; loss = F.cross_entropy(out(h[sel]), tokens(40, sel.numel())); del h
        loss.backward(); opt.step(); opt.zero_grad(set_to_none=True); yield


def w_dlrm(steps, tables=26, rows=(2000, 5_000_000), dim=128, batch=(8192, 49152)):
    """A recommendation model: large embedding tables with sparse gradients, bags of free length."""
    r = random.Random(44); em = nn.ModuleList()
    for _ in range(tables):
        with torch.no_grad(): em.append(nn.EmbeddingBag(1, dim, mode="sum", sparse=True)); n = int(math.exp(r.uniform(math.log(rows[0]), math.log(rows[1])))); em[-1].num_embeddings = n; em[-1].weight = nn.Parameter(torch.empty(n, dim, device=DEV).uniform_(-0.01, 0.01))
    mlp = lambda *s: nn.Sequential(*(k for a, b in zip(s, s[1:]) for k in (nn.Linear(a, b), nn.ReLU()))).to(DEV); bot, top = mlp(13, 512, 256, dim), mlp(dim + (tables + 1) * tables // 2, 1024, 1024, 512, 256, 1)
    osp = torch.optim.SparseAdam(list(em.parameters()), lr=1e-3); od = torch.optim.Adam([*bot.parameters(), *top.parameters()], lr=1e-3); iu = torch.triu_indices(tables + 1, tables + 1, 1, device=DEV)
    hot = [r.randrange(1, 12) for _ in range(tables)]
    for _ in range(steps):
        b = r.randrange(*batch); d = bot(torch.randn(b, 13, device=DEV)); f = [d]
        for e, k in zip(em, hot):
            n = torch.randint(1, k + 1, (b,), device=DEV); off = n.cumsum(0) - n; f.append(e(torch.randint(0, e.num_embeddings, (int(n.sum()),), device=DEV), off))
        z = torch.stack(f, 1); loss = F.binary_cross_entropy_with_logits(top(torch.cat([d, (z @ z.transpose(1, 2))[:, iu[0], iu[1]]], 1))[:, 0], torch.rand(b, device=DEV).lt(0.03).float()); del z, f, d
        loss.backward(); osp.step(); od.step(); osp.zero_grad(set_to_none=True); od.zero_grad(set_to_none=True); yield


class Pair(nn.Module):
    """One layer over a table of residue pairs: triangle products, triangle attention, transition."""
    def __init__(self, c, h):
        super().__init__(); self.h = h; self.n = nn.ModuleList(nn.LayerNorm(c) for _ in range(6)); self.ab = nn.ModuleList(nn.Linear(c, 4 * c) for _ in range(2)); self.g = nn.ModuleList(nn.Linear(c, c) for _ in range(4)); self.o = nn.ModuleList(nn.Linear(c, c) for _ in range(4)); self.qkv = nn.ModuleList(nn.Linear(c, 3 * c) for _ in range(2)); self.b = nn.ModuleList(nn.Linear(c, h, bias=False) for _ in range(2)); self.up, self.down = nn.Linear(c, 4 * c), nn.Linear(4 * c, c)

    def forward(self, z):
        n, _, c = z.shape
        for i, eq in enumerate(("ikc,jkc->ijc", "kic,kjc->ijc")):
            y = self.n[i](z); a, ga, b, gb = self.ab[i](y).chunk(4, -1); t = torch.einsum(eq, a * ga.sigmoid(), b * gb.sigmoid()); z = z + self.g[i](y).sigmoid() * self.o[i](F.layer_norm(t, (c,)))
        for i in range(2):
            y = self.n[2 + i](z if i == 0 else z.transpose(0, 1)); q, k, v = self.qkv[i](y).view(n, n, 3, self.h, c // self.h).permute(2, 0, 3, 1, 4)
            w = F.softmax((q @ k.transpose(-1, -2)) * (c // self.h) ** -0.5 + self.b[i](y).permute(2, 0, 1)[None], -1); y = self.o[2 + i]((w.to(v.dtype) @ v).transpose(1, 2).reshape(n, n, c)) * self.g[2 + i](y).sigmoid(); z = z + (y if i == 0 else y.transpose(0, 1))
        return z + self.down(F.relu(self.up(self.n[4](z))))


def w_fold(steps, c=128, depth=10, length=(80, 600)):
    """A protein model's pair stack with recomputation: memory cubic in a length that is free."""
    ls = build(lambda: nn.ModuleList(Pair(c, 4) for _ in range(depth))); out = nn.Linear(c, 64).to(DEV); opt = torch.optim.Adam([*ls.parameters(), *out.parameters()], lr=1e-4); r = random.Random(45)
    for _ in range(steps):
        n = r.randrange(*length); z = torch.randn(n, n, c, device=DEV, requires_grad=True); h = z
        with torch.autocast(DEV, dtype=BF16):
            for l in ls: h = checkpoint(l, h, use_reentrant=False)
            loss = F.cross_entropy(out(h).float().flatten(0, 1), tokens(64, n * n))
        del h; loss.backward(); opt.step(); opt.zero_grad(set_to_none=True); yield


def w_nerf(steps, width=256, rays=(4096, 30000), samples=96, picture=40000):
    """A radiance field: only samples in occupied space are evaluated; now and then a picture is drawn in chunks."""
    mlp = nn.Sequential(nn.Linear(63, width), nn.ReLU(), *(k for _ in range(7) for k in (nn.Linear(width, width), nn.ReLU())), nn.Linear(width, 4)).to(DEV); opt = torch.optim.Adam(mlp.parameters(), lr=1e-3); r = random.Random(46)

    def draw(n, keep):
        t = torch.rand(n, samples, device=DEV).sort(-1)[0]; p = torch.randn(n, 1, 3, device=DEV) + t[..., None] * torch.randn(n, 1, 3, device=DEV); i = torch.rand(n, samples, device=DEV).lt(keep).nonzero(as_tuple=True)
        q = p[i]; f = (q[:, None] * (2.0 ** torch.arange(10, device=DEV))[:, None]).flatten(1); y = mlp(torch.cat([q, f.sin(), f.cos()], 1)); full = torch.zeros(n, samples, 4, device=DEV).index_put(i, y); a = 1 - torch.exp(-F.relu(full[..., 3]) * 0.01); w = a * torch.cumprod(1 - a + 1e-6, -1)
        return (w[..., None] * full[..., :3].sigmoid()).sum(1)

    for i in range(steps):
        n = r.randrange(*rays); loss = F.mse_loss(draw(n, r.uniform(0.1, 0.8)), torch.rand(n, 3, device=DEV)); loss.backward(); opt.step(); opt.zero_grad(set_to_none=True)
        if i % 10 == 9:
            with torch.no_grad(): torch.cat([draw(k, 0.3) for k in [16384] * (picture // 16384) + [picture % 16384]])
        yield


W = {k[2:]: v for k, v in globals().items() if k.startswith("w_")}
# job: (GiB to set aside, a little over what PyTorch's native allocator reserves; steps to record)
PLAN = {
    "serve": (13, 12), "llama3b_full": (47, 10), "moe": (21, 12), "rlhf": (18, 6), "llama13b_lr": (36, 8), "t5_mix": (45, 10), "dpo": (28, 8), "neox_ro": (45, 10), "unet": (20, 14),
    "gnn": (32, 24), "fold": (36, 14), "video": (18, 20), "nerf": (36, 40),
    "opt_full": (22, 12), "stream_offload": (29, 8), "llama7b_lora": (35, 10), "two_towers": (29, 12), "gpt2_accum": (45, 6), "dlrm": (34, 12), "vit_mix": (28, 14), "llama1b_long": (41, 10),
    "wav2vec": (21, 12), "fsdp": (43, 10), "resnet_prefetch": (17, 14), "grow": (43, 16), "detect_infer": (22, 20), "transducer": (10, 20), "gan": (59, 18), "segment": (21, 14),
}


# ---- running and recording ----

def write_trace(path, limit=14 << 20):
    """Write the allocator's history so far; of a history too large for `limit` bytes only the first part is kept."""
    snap = torch.cuda.memory._snapshot(); snap["device_traces"] = [[{k: v for k, v in e.items() if k != "frames"} for e in d] for d in snap["device_traces"]]; full = sum(map(len, snap["device_traces"]))
    while True:
        with gzip.open(path, "wb", compresslevel=6) as f: pickle.dump(snap, f, protocol=4)
        if os.path.getsize(path) <= limit: return full, sum(map(len, snap["device_traces"]))
        snap["device_traces"] = [d[:int(len(d) * 0.9 * limit / os.path.getsize(path))] for d in snap["device_traces"]]


def run_one(a):
    torch.manual_seed(0); random.seed(0); torch.set_float32_matmul_precision("high")
    if a.hook: __import__(a.hook)
    if a.fraction: torch.cuda.set_per_process_memory_fraction(a.fraction)
    if a.record: torch.cuda.memory._record_memory_history(enabled="all", context=None, stacks="python", max_entries=3_000_000)
    t = []; err = None; begin = t0 = time.time()
    try:
        for _ in W[a.name](a.steps or PLAN[a.name][1]):
            torch.cuda.synchronize(); t.append(time.time() - t0); t0 = time.time()
            if a.seconds and t0 - begin > a.seconds: break
    except torch.cuda.OutOfMemoryError: err = "OOM"
    s = torch.cuda.memory_stats(); free, total = torch.cuda.mem_get_info()
    line = dict(job=a.name, alloc=os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "native"), steps=len(t), err=err, peak_allocated=s.get("allocated_bytes.all.peak"), peak_requested=s.get("requested_bytes.all.peak"), peak_active=s.get("active_bytes.all.peak"), peak_reserved=s.get("reserved_bytes.all.peak"), device_used=total - free, median_step=sorted(t)[len(t) // 2] if t else None, seconds=time.time() - begin, allocs=s.get("allocation.all.allocated"), segs=s.get("segment.all.allocated"), retries=s.get("num_alloc_retries"))
    if a.record: line["events"], line["events_kept"] = write_trace(a.record)
    print(json.dumps(line), flush=True)


def run_all(a):
    t0 = time.time(); names = a.only.split(",") if a.only else list(PLAN); waiting = list(names); live = {}; used = []; done = set(); work = tempfile.mkdtemp()
    os.makedirs(a.out, exist_ok=True); out = os.path.join(a.out, "results.jsonl"); env = dict(os.environ, OMP_NUM_THREADS="2", HF_HUB_OFFLINE="1", PYTHONUNBUFFERED="1")

    def keep(path):  # into the first tar with room
        size = os.path.getsize(path) + 2048
        for i in range(7):
            if i == len(used): used.append(20 * 512)
            if used[i] + size <= 15 << 20 and sum(used) + size <= 62 << 20:
                with tarfile.open(os.path.join(a.out, f"g{i}.tar"), "a") as tar: tar.add(path, os.path.basename(path))
                used[i] += size; return True
        return False

    while waiting or live:
        now = time.time() - t0
        for n, (p, log, since) in list(live.items()):
            late = now > a.deadline or now - since > a.timeout
            if late and p.poll() is None: p.kill(); p.wait()
            if p.poll() is None: continue
            log.seek(0); text = log.read().decode(errors="replace").strip().splitlines(); del live[n]; path = os.path.join(work, n + ".pickle.gz")
            if p.returncode == 0 and os.path.exists(path):
                kept = keep(path); line = json.loads([x for x in text if x.startswith("{")][-1]); g = 2 ** 30; done.add(n)
                with open(out, "a") as f: f.write(json.dumps(dict(line, wall=now - since, kept=kept, size=os.path.getsize(path))) + "\n")
                print(f"{now:5.0f}s {n}: {line['steps']} steps in {line['seconds']:.0f} of {now - since:.0f} s, allocated {line['peak_allocated'] / g:.2f} reserved {line['peak_reserved'] / g:.2f} GiB, {line['events']} events, retries {line['retries']}, {os.path.getsize(path) >> 10} KiB{'' if kept else ', NO ROOM'} {line['err'] or ''}", flush=True)
            else: print(f"{now:5.0f}s {n}: FAILED ({'late' if late else p.returncode}) after {now - since:.0f} s\n    " + "\n    ".join(x[:200] for x in [x for x in text if x.strip(" ^~")][-8:]), flush=True)
        if now > a.deadline - 25: waiting.clear()
        for n in list(waiting):
            if len(live) < a.workers and sum(PLAN[k][0] for k in live) + PLAN[n][0] <= a.gib:
                waiting.remove(n); log = tempfile.TemporaryFile(); cmd = [sys.executable, os.path.abspath(__file__), n, "--record", os.path.join(work, n + ".pickle.gz"), "--seconds", str(a.seconds or 40)]
                live[n] = (subprocess.Popen(cmd, stdout=log, stderr=subprocess.STDOUT, env=env), log, time.time() - t0)
        time.sleep(0.2)
    print(f"{time.time() - t0:5.0f}s done; not recorded: {[n for n in names if n not in done]}", flush=True)


if __name__ == "__main__":
    ap = argparse.ArgumentParser(); ap.add_argument("name", choices=["all", *W]); ap.add_argument("--steps", type=int); ap.add_argument("--seconds", type=float); ap.add_argument("--record"); ap.add_argument("--fraction", type=float); ap.add_argument("--hook")
    ap.add_argument("--out", default="traces"); ap.add_argument("--only"); ap.add_argument("--deadline", type=float, default=600); ap.add_argument("--timeout", type=float, default=90); ap.add_argument("--gib", type=float, default=132); ap.add_argument("--workers", type=int, default=6)
    a = ap.parse_args(); (run_all if a.name == "all" else run_one)(a)
