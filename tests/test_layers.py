"""Laws of replacement: exactly the blocks' Linears, nothing else changes, all comes back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import transformers
from helpers.models import CONFIGS, WIDE, make_model
from torch import Tensor, nn

from nsvd_exp.errors import NsvdError
from nsvd_exp.models.layers import (
    LowRankLinear,
    find_linears,
    not_finite,
    parameter_count,
    replaced,
)

LLAMA_TYPE = [
    *(f"self_attn.{letter}_proj" for letter in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
]
LINEARS = [f"model.layers.{i}.{linear}" for i in range(2) for linear in LLAMA_TYPE]
IDS = torch.arange(2, 42).view(2, 20)


def with_biases(name: str) -> nn.Module:
    """A random model whose biases are not 0, as they are when it is made."""
    model = make_model(name)
    for path, parameter in model.named_parameters():
        if path.endswith("bias"):
            nn.init.normal_(parameter)
    return model


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model(input_ids=IDS).logits


def whole_weight(linear: nn.Linear) -> LowRankLinear:
    """W = W I."""
    eye = torch.eye(linear.in_features)
    return LowRankLinear(linear.weight.data, eye, linear.bias)


def full_svd(linear: nn.Linear) -> LowRankLinear:
    """W = (U S) Vᵀ, computed in float64."""
    U, S, Vh = torch.linalg.svd(linear.weight.data.double(), full_matrices=False)
    return LowRankLinear((U * S).float(), Vh.float(), linear.bias)


def of_rank(linear: nn.Linear, k: int) -> LowRankLinear:
    m, n = linear.weight.shape
    return LowRankLinear(torch.randn(m, k), torch.randn(k, n), linear.bias)


def gpt2() -> nn.Module:
    tokens = {"bos_token_id": 1, "eos_token_id": 1}
    config = transformers.GPT2Config(
        vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=64, **tokens
    )
    return transformers.AutoModelForCausalLM.from_config(config)


def mixtral() -> nn.Module:
    config = transformers.MixtralConfig(**WIDE, num_key_value_heads=2, num_local_experts=4)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_finds_exactly_the_linears_of_the_blocks(name: str) -> None:
    """Seven in a block of the LLaMA type, four in one of GPT-NeoX, six in one of OPT."""
    model = make_model(name)
    found = find_linears(model, [])
    linears = {p: m for p, m in model.named_modules() if isinstance(m, nn.Linear)}
    assert list(found.items()) == [(p, m) for p, m in linears.items() if ".layers." in p]
    assert len(found) == 2 * {"gpt_neox": 4, "opt": 6}.get(name, 7)
    assert name in ("gpt_neox", "opt") or list(found) == LINEARS
    assert {p.rpartition(".")[2] for p in linears.keys() - found} <= {"lm_head", "embed_out"}


@pytest.mark.parametrize("factors", [whole_weight, full_svd])
@pytest.mark.parametrize("name", CONFIGS)
def test_full_rank_factors_change_nothing(
    name: str, factors: Callable[[nn.Linear], LowRankLinear]
) -> None:
    model = with_biases(name)
    expected = logits(model)
    compressed = {path: factors(linear) for path, linear in find_linears(model, []).items()}
    with replaced(model, compressed):
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=2e-5)
        assert all(model.get_submodule(path) is layer for path, layer in compressed.items())


@pytest.mark.parametrize("has_bias", [True, False])
def test_low_rank_linear_is_the_product_of_its_factors(has_bias: bool) -> None:
    left, right, x = torch.randn(7, 3), torch.randn(3, 5), torch.randn(2, 4, 5)
    bias = torch.randn(7) if has_bias else None
    layer = LowRankLinear(left, right, bias)
    expected = x @ (left @ right).T + (bias if has_bias else 0)
    torch.testing.assert_close(layer(x), expected)
    assert (layer.in_features, layer.out_features, layer.rank) == (5, 7, 3)
    assert parameter_count(layer) == 3 * (7 + 5) + (7 if has_bias else 0)


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_k_times_m_plus_n(name: str) -> None:
    model, k = make_model(name), 5
    linears = find_linears(model, [])
    dense = parameter_count(model)
    saved = sum(w.numel() - k * sum(w.shape) for w in (x.weight for x in linears.values()))
    with replaced(model, {path: of_rank(linear, k) for path, linear in linears.items()}):
        assert parameter_count(model) == dense - saved
    assert parameter_count(model) == dense


def test_a_tied_head_counts_once_and_is_no_obstacle() -> None:
    model = make_model("opt")
    assert model.lm_head.weight is model.get_input_embeddings().weight
    storages = {p.data_ptr(): p.numel() for p in model.state_dict().values()}
    assert parameter_count(model) == sum(storages.values())
    assert find_linears(model, [])


@pytest.mark.parametrize("name", CONFIGS)
def test_the_originals_come_back_even_after_an_exception(name: str) -> None:
    model = with_biases(name)
    expected, linears = logits(model), find_linears(model, [])

    def fail_inside() -> None:
        with replaced(model, {path: of_rank(linear, 1) for path, linear in linears.items()}):
            assert not torch.allclose(logits(model), expected)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_inside()
    assert all(model.get_submodule(path) is linear for path, linear in linears.items())
    assert torch.equal(logits(model), expected)


def test_an_unknown_name_leaves_the_model_as_it_was() -> None:
    model = make_model("llama")
    path, linear = next(iter(find_linears(model, []).items()))
    with (
        pytest.raises(AttributeError),
        replaced(model, {path: of_rank(linear, 1), "model.layers.9.nothing": of_rank(linear, 1)}),
    ):
        pass
    assert model.get_submodule(path) is linear


@pytest.mark.parametrize("name", ["llama_gqa", "opt"])
def test_generate_works_with_replaced_layers(name: str) -> None:
    model = with_biases(name)
    prompt = IDS[:1, :4]
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 1, "eos_token_id": None}
    expected = model.generate(prompt, **options)
    linears = find_linears(model, [])
    with replaced(model, {path: full_svd(linear) for path, linear in linears.items()}):
        assert torch.equal(model.generate(prompt, **options), expected)
    assert expected.shape[1] == 10


@pytest.mark.parametrize(
    ("skip", "left_dense"),
    [
        (["model.layers.0.mlp.up_proj"], ["0.mlp.up_proj"]),
        (["model.layers.1.mlp"], [f"1.mlp.{x}_proj" for x in ("gate", "up", "down")]),
        (["model.layers.1"], [f"1.{linear}" for linear in LLAMA_TYPE]),
        (["*.q_proj", "*0.self_attn.k_*"], ["0.self_attn.q_proj", "1.self_attn.q_proj",
                                            "0.self_attn.k_proj"]),
    ],
    ids=["full name", "container", "block", "wildcards"],
)  # fmt: skip
def test_skipped_layers_stay_dense(skip: list[str], left_dense: list[str]) -> None:
    kept_out = {f"model.layers.{name}" for name in left_dense}
    expected = [name for name in LINEARS if name not in kept_out]
    assert list(find_linears(make_model("llama"), skip)) == expected


def test_a_container_pattern_takes_no_namesake() -> None:
    """`model.layers.1` is block 1, not block 10."""
    config = transformers.LlamaConfig(**WIDE | {"num_hidden_layers": 11})
    model = transformers.AutoModelForCausalLM.from_config(config)
    assert "model.layers.10.mlp.up_proj" in find_linears(model, ["model.layers.1"])


@pytest.mark.parametrize("pattern", ["model.layers.0.mlp.upproj", "lm_head", "layers.0"])
def test_a_pattern_that_matches_nothing_is_an_error(pattern: str) -> None:
    with pytest.raises(NsvdError, match=rf"model\.skip: '{pattern}' matches no layer; one is .*\d"):
        find_linears(make_model("llama"), [pattern])


def test_skipping_everything_is_an_error() -> None:
    with pytest.raises(NsvdError, match=r"'model\.layers' hold no Linear"):
        find_linears(make_model("llama"), ["*"])


class ScaledLinear(nn.Linear):
    """Computes something else than x Wᵀ + b."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class RenamedLinear(nn.Linear):
    """A subclass that computes what its parent does."""


class PackedLinear(nn.Module):
    """As GPTQ and AWQ keep a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("qweight", torch.zeros(4, 32, dtype=torch.int32))


def with_layer(layer: nn.Module) -> nn.Module:
    model = make_model("llama")
    model.model.layers[1].mlp.up_proj = layer
    return model


def integer_linear() -> nn.Linear:
    linear = nn.Linear(32, 48, bias=False)
    linear.weight = nn.Parameter(torch.zeros(48, 32, dtype=torch.int8), requires_grad=False)
    return linear


def sharing(a: str, b: str) -> nn.Module:
    """A model in which two modules hold one weight."""
    model = make_model("llama")
    model.get_submodule(a).weight = model.get_submodule(b).weight
    return model


def shared_module() -> nn.Module:
    """A model in which two blocks hold one Linear."""
    model = make_model("llama")
    model.model.layers[1].self_attn.q_proj = model.model.layers[0].self_attn.q_proj
    return model


Q0, Q1 = (f"model.layers.{i}.self_attn.q_proj" for i in range(2))
UP1 = "model.layers.1.mlp.up_proj"


SHARES = "shares its weight with another module"
REFUSED: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "gpt2": (gpt2, "transformer.h.0.attn.c_attn", "convolution-style"),
    "conv1d": (lambda: with_layer(nn.Conv1d(32, 48, 1)), UP1, "convolution-style"),
    "shared": (lambda: sharing(Q1, Q0), Q0, SHARES),
    "shared outside": (lambda: sharing("lm_head", Q0), Q0, SHARES),
    "shared module": (shared_module, Q0, SHARES),
    "forward": (lambda: with_layer(ScaledLinear(32, 48)), UP1, "computes something else"),
    "int8": (lambda: with_layer(integer_linear()), UP1, "quantised"),
    "packed": (lambda: with_layer(PackedLinear()), UP1, "quantised"),
    "mixtral": (mixtral, "model.layers.0.mlp.gate", "outside of any Linear"),
    "low-rank": (lambda: with_layer(of_rank(nn.Linear(32, 48), 3)), UP1, "is low-rank already"),
}


@pytest.mark.parametrize(("make", "name", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_two_factors_cannot_replace_is_refused_by_name(
    make: Callable[[], nn.Module], name: str, reason: str
) -> None:
    with pytest.raises(NsvdError) as caught:
        find_linears(make(), [])
    message = str(caught.value)
    assert message.startswith(f"{name} (")
    assert reason in message
    assert message.endswith(f"model.skip=[{name}]")


def test_a_subclass_with_the_forward_of_linear_is_compressed() -> None:
    layer = RenamedLinear(32, 48)
    assert find_linears(with_layer(layer), [])[UP1] is layer


def test_the_attention_of_a_mixture_of_experts_can_be_compressed() -> None:
    model = mixtral()
    linears = find_linears(model, ["*.mlp.gate", "*.mlp.experts"])
    assert list(linears) == [name for name in LINEARS if "self_attn" in name]
    expected = logits(model)
    with replaced(model, {name: full_svd(linear) for name, linear in linears.items()}):
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=2e-5)


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(NsvdError, match="Sequential has no list of decoder blocks"):
        find_linears(nn.Sequential(nn.Linear(4, 4)), [])


def test_the_blocks_are_the_outermost_list_with_most_parameters() -> None:
    block = nn.ModuleDict({"heads": nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])})
    lists = {"adapters": nn.ModuleList([nn.Linear(9, 9)]), "blocks": nn.ModuleList([block])}
    assert list(find_linears(nn.ModuleDict(lists), [])) == ["blocks.0.heads.0", "blocks.0.heads.1"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(value: float) -> None:
    model = make_model("llama")
    assert not_finite(model) is None
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = value
    assert not_finite(model) == f"{UP1}.weight"
