"""Statistics of layer inputs, against the definitions."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.matrices import gram, inputs_by_hand
from helpers.models import CONFIGS, make_model
from helpers.texts import token_ids
from torch import nn

from nsvd_exp.errors import NsvdError
from nsvd_exp.methods.statistics import Calibration, Statistics
from nsvd_exp.models.layers import find_linears
from nsvd_exp.pipeline import calibrate as calibration
from nsvd_exp.pipeline.inputs import PANEL

# Which layers read one tensor, by architecture: what their forward code says.
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
SHARED_INPUTS = {
    "llama": [QKV, ("mlp.gate_proj", "mlp.up_proj")],
    "opt": [QKV],
    "gpt_neox": [],
}


def calibrate(*args: Any, **options: Any) -> Calibration:
    return Calibration(*calibration.calibrate(*args, **options))


@pytest.mark.parametrize("name", CONFIGS)
def test_statistics_are_what_their_definitions_say(name: str) -> None:
    model = make_model(name).double()
    ids = token_ids()
    statistics = calibrate(model, find_linears(model, []), ids, batch=3)
    by_hand = inputs_by_hand(model, ids)
    assert statistics.reads.keys() == by_hand.keys()
    for layer, x in by_hand.items():
        s = statistics.of(layer)
        assert s.tokens == len(x) == ids.numel()
        torch.testing.assert_close(s.gram, x.T @ x)
        torch.testing.assert_close(s.abs_mean, x.abs().mean(0))
        torch.testing.assert_close(s.mean, x.mean(0))


@pytest.mark.parametrize(("name", "groups"), SHARED_INPUTS.items())
def test_layers_that_read_one_tensor_share_statistics_and_no_others_do(
    name: str, groups: list[tuple[str, ...]]
) -> None:
    model = make_model(name)
    layers = find_linears(model, [])
    statistics = calibrate(model, layers, token_ids())
    blocks = model.config.num_hidden_layers
    assert len(statistics.inputs) == len(layers) - blocks * sum(len(group) - 1 for group in groups)
    for group in groups:
        members = [name for name in layers if ".0." in name and name.endswith(group)]
        assert len(members) == len(group)
        (read,) = {statistics.reads[name] for name in members}
        assert read in members


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-13), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)],
)
def test_the_batch_size_shows_only_as_rounding(dtype: torch.dtype, tolerance: float) -> None:
    """Relative to the Gram matrix: the rounding of the forward pass itself, and no more."""
    model = make_model("llama").to(dtype)
    layers, ids = find_linears(model, []), token_ids(16)
    reference = calibrate(model, layers, ids, batch=16)
    for batch in (1, 5):
        other = calibrate(model, layers, ids, batch=batch)
        for name, s in reference.inputs.items():
            error = torch.linalg.matrix_norm(other.inputs[name].gram - s.gram)
            assert error <= tolerance * torch.linalg.matrix_norm(s.gram), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_products_are_accumulated_in_float32(dtype: torch.dtype) -> None:
    """4096 equal tokens: a sum in half precision would stop growing at 2048 or 256."""
    x = torch.full((4096, 2), 1.0, dtype=dtype)
    assert gram(x).dtype == torch.float32
    assert gram(x).tolist() == [[4096.0, 4096.0], [4096.0, 4096.0]]
    # Products beyond float16's range stay finite.
    big = torch.full((4, 1), 60000.0, dtype=torch.float16)
    assert float(gram(big)) == pytest.approx(4 * 59968.0**2, rel=1e-2)


@pytest.mark.parametrize("n", [1, 7, PANEL, PANEL + 1, 2 * PANEL + 3])
def test_a_gram_matrix_made_in_panels_is_whole_and_symmetric(n: int) -> None:
    x = torch.randn(5, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    G = gram(x)
    torch.testing.assert_close(G, x.T @ x)
    torch.testing.assert_close(G, G.T)


def of_one_block(run: Callable[..., object]) -> tuple[Statistics, Statistics]:
    """The statistics of two layers in one block, whose forward pass is `run(first, second, x)`."""
    model = nn.Module()
    block = nn.ModuleDict({name: nn.Linear(4, 4).double() for name in ("first", "second")})
    block.forward = lambda x: run(block["first"], block["second"], x)
    model.blocks = nn.ModuleList([block])
    model.forward = lambda input_ids, use_cache: block(
        nn.functional.one_hot(input_ids % 4, 4).double()
    )
    found = calibrate(model, find_linears(model, []), token_ids())
    return found.of("blocks.0.first"), found.of("blocks.0.second")


@pytest.mark.parametrize(
    ("run", "one", "other"),
    [
        (lambda first, second, x: (first(x), second(x.mul_(2))), 2, 1),  # changed in place
        # Inputs that die at once: the allocator gives the second the address of the first.
        (lambda first, second, x: (first(x * 2), second(x * 3)), 3, 2),
        (lambda first, second, x: (first(input=x), second(x)), 1, 1),  # by keyword
    ],
)
def test_an_input_is_the_same_while_its_content_is(
    run: Callable[..., object], one: int, other: int
) -> None:
    first, second = of_one_block(run)
    torch.testing.assert_close(other**2 * second.gram, one**2 * first.gram)
    assert (first is second) == (one == other)
    assert first.tokens == second.tokens == token_ids().numel()


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        (
            lambda first, second, x: (first(x), first(x * 3), second(x)),
            " shares some of its inputs",
        ),
        (lambda first, second, x: first(x), ": it saw no calibration token"),
    ],
)
def test_layers_whose_inputs_do_not_do_are_refused(
    run: Callable[..., object], problem: str
) -> None:
    with pytest.raises(NsvdError, match=rf"blocks\.0\.second{problem}"):
        of_one_block(run)


def test_no_more_than_one_block_of_inputs_is_held() -> None:
    model = make_model("llama")
    first, second = model.model.layers
    inputs: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []
    for layer in find_linears(model, []).values():
        layer.register_forward_pre_hook(lambda _, args: inputs.append(weakref.ref(args[0])))
    for block in (first.mlp.down_proj, second):
        block.register_forward_pre_hook(
            lambda *_: alive.append(len({id(x()) for x in inputs if x() is not None}))
        )
    calibrate(model, find_linears(model, []), token_ids(), batch=7)
    assert alive == [4, 0]  # of q k v, of o, of gate and up, of down; and none of the last block


def test_activations_that_are_not_finite_name_the_first_layer() -> None:
    model = make_model("llama")
    model.model.layers[1].input_layernorm.weight.data[3] = float("inf")
    with pytest.raises(NsvdError, match=r"input of model\.layers\.1\.self_attn\.q_proj is NaN"):
        calibrate(model, find_linears(model, []), token_ids())


def test_a_pass_that_ran_out_of_memory_counts_nothing_twice() -> None:
    """`auto` starts again with half the batch; what the broken pass had added is forgotten."""
    model = make_model("llama").double()
    layers, ids = find_linears(model, []), token_ids(600, 16)
    expected = calibrate(model, layers, ids, batch=100)

    def refuse(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if len(args[0]) > 70:
            raise torch.cuda.OutOfMemoryError("out of memory")

    handle = model.model.layers[1].mlp.down_proj.register_forward_pre_hook(refuse)
    statistics = calibrate(model, layers, ids, batch="auto")
    for name, s in expected.inputs.items():
        assert statistics.inputs[name].tokens == 600 * 16
        torch.testing.assert_close(statistics.inputs[name].gram, s.gram)
    with pytest.raises(NsvdError, match="too little memory for 100 windows"):
        calibrate(model, layers, ids, batch=100)
    handle.remove()
    assert not any(layer._forward_pre_hooks for layer in layers.values())
