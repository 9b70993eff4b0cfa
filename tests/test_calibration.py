"""Statistics of layer inputs, against the definitions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.matrices import gram, inputs_by_hand
from helpers.models import CONFIGS, make_model
from helpers.texts import token_ids
from torch import nn

from nsvd_exp.errors import NsvdError
from nsvd_exp.methods.base import Calibration
from nsvd_exp.models.layers import find_linears
from nsvd_exp.pipeline import calibrate as calibration
from nsvd_exp.pipeline.calibrate import PANEL, GramAccumulator, InputWatcher

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


class OneBlock(nn.Module):
    """A model with a single block, so that a test can say what its layers read."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([block])

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> None:
        self.blocks[0](nn.functional.one_hot(input_ids % 4, 4).double())


class Rewriting(nn.Module):
    """Two layers that get the same tensor object, which is changed in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Linear(4, 4).double() for _ in range(2))

    def forward(self, x: torch.Tensor) -> None:
        self.first(x)
        self.second(x.mul_(2))


def test_a_tensor_changed_in_place_is_another_input() -> None:
    model = OneBlock(Rewriting())
    s = calibrate(model, find_linears(model, []), token_ids())
    torch.testing.assert_close(s.of("blocks.0.second").gram, 4 * s.of("blocks.0.first").gram)


class ShortLived(nn.Module):
    """Inputs that die at once: the allocator gives the second the address of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Linear(4, 4).double() for _ in range(2))

    def forward(self, x: torch.Tensor) -> None:
        self.first(x * 2)
        self.second(x * 3)


def test_an_address_used_again_is_another_input() -> None:
    model = OneBlock(ShortLived())
    s = calibrate(model, find_linears(model, []), token_ids())
    torch.testing.assert_close(4 * s.of("blocks.0.second").gram, 9 * s.of("blocks.0.first").gram)


class ByKeyword(nn.Module):
    """A layer that gets its input as a keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4).double()

    def forward(self, x: torch.Tensor) -> None:
        self.layer(input=x)


def test_inputs_given_by_keyword_count_too() -> None:
    model = OneBlock(ByKeyword())
    s = calibrate(model, find_linears(model, []), token_ids())
    assert s.of("blocks.0.layer").tokens == token_ids().numel()


class PartlyShared(nn.Module):
    """Two layers that share one of the two inputs of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Linear(4, 4).double() for _ in range(2))

    def forward(self, x: torch.Tensor) -> None:
        self.first(x)
        self.first(x * 3)
        self.second(x)


def test_layers_that_share_some_inputs_and_not_others_are_refused() -> None:
    model = OneBlock(PartlyShared())
    with pytest.raises(NsvdError, match=r"blocks\.0\.second shares some of its inputs"):
        calibrate(model, find_linears(model, []), token_ids())


def test_no_more_than_one_block_of_inputs_is_held() -> None:
    model = make_model("llama")
    watcher = InputWatcher(find_linears(model, []), model.model.layers, GramAccumulator)
    held = []
    handle = model.model.layers[1].register_forward_pre_hook(
        lambda *_: held.append(len(watcher._seen))
    )
    with watcher.watching(), torch.no_grad():
        model(input_ids=token_ids())
    handle.remove()
    assert held == [0]
    assert not watcher._seen


class Unused(nn.Module):
    """A layer that no token reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = (nn.Linear(4, 4).double() for _ in range(2))

    def forward(self, x: torch.Tensor) -> None:
        self.used(x)


def test_a_layer_without_a_token_is_an_error() -> None:
    model = OneBlock(Unused())
    with pytest.raises(NsvdError, match=r"blocks\.0\.unused saw no calibration token"):
        calibrate(model, find_linears(model, []), token_ids())


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


def test_hooks_are_gone_afterwards() -> None:
    model = make_model("llama")
    layers = find_linears(model, [])
    calibrate(model, layers, token_ids())
    assert not any(layer._forward_pre_hooks for layer in layers.values())
