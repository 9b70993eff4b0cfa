"""Training of the bundled model, and its dense perplexity."""

import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from nsvd_exp.pipeline.evaluate import perplexity, window_nll

WINDOW = 256
BATCH = 16
WARMUP_STEPS = 60
MATRIX_RATE = 0.02
MATRIX_DECAY = 0.05
OTHER_RATE = 3e-3


def new_model(vocab_size: int, end_id: int) -> LlamaForCausalLM:
    """An untrained model of about two million parameters, four fifths of them in its blocks."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=WINDOW,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end_id,
        pad_token_id=end_id,
    )
    return LlamaForCausalLM(config)


def rate_factor(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine that ends at a hundredth of the peak."""
    warmup = min(WARMUP_STEPS, max(1, steps // 10))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def sample_batch(streams: list[Tensor], generator: torch.Generator) -> Tensor:
    """Windows `(BATCH, WINDOW + 1)`, the corpora taking turns, each at a random offset."""
    first = int(torch.randint(len(streams), (1,), generator=generator))
    windows = []
    for index in range(BATCH):
        stream = streams[(first + index) % len(streams)]
        start = int(torch.randint(len(stream) - WINDOW, (1,), generator=generator))
        windows.append(stream[start : start + WINDOW + 1])
    return torch.stack(windows)


def make_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the embedding and the norms.

    Muon makes every singular value of a step about one, so the weights come to use their whole
    rank. Weights that AdamW trains for as short a time stay close to low rank, and no compression
    would show: plain SVD at ratio 0.5 raised their perplexity by a tenth, not a hundredfold.
    """
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    return [
        torch.optim.Muon(
            matrices, lr=MATRIX_RATE, weight_decay=MATRIX_DECAY, adjust_lr_fn="original"
        ),
        torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def train(
    model: LlamaForCausalLM, streams: Mapping[str, Tensor], steps: int, seed: int
) -> LlamaForCausalLM:
    """Train `model` on the token streams, one per corpus, for `steps` batches."""
    generator = torch.Generator().manual_seed(seed)
    optimizers = make_optimizers(model)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    peaks = [group["lr"] for group in groups]
    model.train()
    started, smooth = time.time(), math.nan
    for step in range(steps):
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * rate_factor(step, steps)
        batch = sample_batch(list(streams.values()), generator)
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        smooth = loss.item() if math.isnan(smooth) else 0.95 * smooth + 0.05 * loss.item()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            spent = time.time() - started
            print(f"step {step + 1:5d}/{steps}  loss {smooth:.3f}  {spent:.0f} s", flush=True)
    return model.eval()


def stream_perplexity(model: torch.nn.Module, ids: Tensor) -> float:
    """Perplexity of the token stream `(tokens,)` over whole windows; the tail is dropped."""
    windows = ids[: len(ids) // WINDOW * WINDOW].view(-1, WINDOW)
    return perplexity(sum(window_nll(model, windows)), len(windows) * (WINDOW - 1))
