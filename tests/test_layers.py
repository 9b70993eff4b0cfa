"""Laws of replacement: exactly the blocks' Linears, nothing else changes, all comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from helpers.models import CONFIGS, WIDE, make_model
from torch import Tensor, nn

from nsvd_exp.errors import LayersError, NsvdError
from nsvd_exp.methods import NSVD
from nsvd_exp.methods.statistics import Calibration
from nsvd_exp.models.layers import (
    Layer,
    decoder_blocks,
    dense_note,
    find_linears,
    not_finite,
    parameter_count,
    replaced,
    shape_of,
    survey,
    weight_of,
)
from nsvd_exp.models.lowrank import LowRankLinear
from nsvd_exp.models.storage import Factors
from nsvd_exp.pipeline.calibrate import calibrate
from nsvd_exp.pipeline.compress import Compressor
from nsvd_exp.pipeline.evaluate import window_nll

LLAMA_TYPE = [
    *(f"self_attn.{letter}_proj" for letter in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
]
ATTENTION = " ".join(LLAMA_TYPE[:4])
SHARED_EXPERT = "mlp.shared_expert.gate_proj mlp.shared_expert.up_proj mlp.shared_expert.down_proj"
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


def full_svd(linear: Layer) -> LowRankLinear:
    """W = (U S) Vᵀ, computed in float64."""
    U, S, Vh = torch.linalg.svd(weight_of(linear).double(), full_matrices=False)
    return LowRankLinear((U * S).float(), Vh.float(), linear.bias)


def of_rank(linear: nn.Linear, k: int) -> LowRankLinear:
    m, n = linear.weight.shape
    return LowRankLinear(torch.randn(m, k), torch.randn(k, n), linear.bias)


IDS_OF = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
SMALL = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2}
EXPERTS = WIDE | {"num_key_value_heads": 2, "num_experts_per_tok": 2, "head_dim": 8}
FEW = {"num_experts": 4, "moe_intermediate_size": 16}
# Families whose blocks hold more than Linears of torch: a configuration; the layers of block 1 that
# are compressed; and what stays dense there.
FAMILIES: dict[str, tuple[Callable[[], Any], str, str]] = {
    "gpt2": (
        lambda: transformers.GPT2Config(
            vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=64, **IDS_OF
        ),
        "attn.c_attn attn.c_proj mlp.c_fc mlp.c_proj",
        "",
    ),
    "falcon": (
        lambda: transformers.FalconConfig(**SMALL, num_attention_heads=4, bias=True, **IDS_OF),
        "self_attention.query_key_value self_attention.dense mlp.dense_h_to_4h mlp.dense_4h_to_h",
        "",
    ),
    "mixtral": (
        lambda: transformers.MixtralConfig(**EXPERTS, num_local_experts=4),
        ATTENTION,
        "mlp.experts mlp.gate",
    ),
    "qwen3_moe": (
        lambda: transformers.Qwen3MoeConfig(**EXPERTS, **FEW),
        ATTENTION,
        "mlp.experts mlp.gate",
    ),
    "gpt_oss": (
        lambda: transformers.GptOssConfig(**EXPERTS, num_local_experts=4, pad_token_id=0),
        ATTENTION,
        "mlp.experts mlp.router",
    ),
    "llama4": (
        lambda: transformers.Llama4TextConfig(
            **EXPERTS | {"num_experts_per_tok": 1}, **IDS_OF,
            intermediate_size_mlp=48, num_local_experts=4, attention_chunk_size=32,
        ),
        f"{ATTENTION} {SHARED_EXPERT.replace('mlp', 'feed_forward')}",
        "feed_forward.experts feed_forward.router",
    ),
    "qwen3_next": (
        lambda: transformers.Qwen3NextConfig(
            **EXPERTS, **FEW, shared_expert_intermediate_size=16,
            linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2,
            linear_num_value_heads=4, layer_types=["linear_attention", "full_attention"],
        ),
        f"{ATTENTION} {SHARED_EXPERT} mlp.shared_expert_gate",
        "mlp.experts mlp.gate",
    ),
    "mamba": (
        lambda: transformers.MambaConfig(**SMALL, state_size=4, **IDS_OF),
        "mixer.in_proj mixer.x_proj mixer.dt_proj mixer.out_proj",
        "mixer mixer.conv1d",
    ),
    "mamba2": (
        lambda: transformers.Mamba2Config(
            **SMALL, state_size=4, num_heads=8, head_dim=8, n_groups=1, chunk_size=8, **IDS_OF
        ),
        "mixer.in_proj mixer.out_proj",
        "mixer.conv1d",
    ),
}  # fmt: skip


def make_family(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(FAMILIES[name][0]()).eval()
    for parameter in model.parameters():  # some are 0, or not set at all, when a model is made
        nn.init.normal_(parameter, std=0.1)
    return model


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


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_no_linear_stays_and_the_linears_beside_it_are_compressed(name: str) -> None:
    """Conv1D and FalconLinear too; with factors of full rank the model is as it was."""
    model, (_, compressed, dense) = make_family(name), FAMILIES[name]
    found = survey(model, [])
    block = f"{decoder_blocks(model)[0]}.1."
    assert found.refused == {}
    names = [n.removeprefix(block) for n in found.layers if n.startswith(block)]
    assert sorted(names) == sorted(compressed.split())
    stays = [n.removeprefix(block) for n in found.dense if n.startswith(block)]
    assert sorted(stays) == sorted(dense.split())
    assert find_linears(model, []) == found.layers
    expected = logits(model)
    with replaced(model, {path: full_svd(layer) for path, layer in found.layers.items()}):
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", set(FAMILIES) - {"mamba"})
def test_a_family_is_calibrated_compressed_and_measured(name: str) -> None:
    """NSVD-I with full ranks: a transpose in the wrong place would show."""
    model = make_family(name)
    skip = ["*.shared_expert_gate"] if name == "qwen3_next" else []
    layers = find_linears(model, skip)
    calibration = Calibration(*calibrate(model, layers, IDS))
    ranks = {path: min(shape_of(layer)) for path, layer in layers.items()}
    compressor = Compressor(NSVD(), ranks, calibration, Factors(), torch.float32)
    low_rank, rows = compressor.compress(layers)
    assert [(row["m"], row["n"]) for row in rows] == [shape_of(x) for x in layers.values()]
    expected = window_nll(model, IDS)
    with replaced(model, low_rank):
        assert window_nll(model, IDS) == pytest.approx(expected, rel=1e-4)


def test_a_line_says_what_stays_dense_and_how_much_of_the_model_that_is() -> None:
    model = make_family("mixtral")
    dense = sum(p.numel() for n, p in model.named_parameters() if ".mlp." in n)
    share = f"{dense / parameter_count(model):.1%}"
    assert dense_note(model, survey(model, [])) == (
        f"what is no Linear stays dense, {share} of the parameters: model.layers.*.mlp.gate "
        "(MixtralTopKRouter: weight), model.layers.*.mlp.experts "
        "(MixtralExperts: gate_up_proj, down_proj)"
    )
    for name in ("gpt2", "falcon"):
        assert dense_note(make_family(name), survey(make_family(name), [])) is None


def test_all_refusals_are_listed_with_the_one_skip_that_answers_them() -> None:
    model = make_family("mixtral")
    model.model.layers[1].self_attn.q_proj = integer_linear()
    with pytest.raises(LayersError) as caught:
        find_linears(model, ["*.k_proj"], strict=True)
    lines = str(caught.value).splitlines()
    assert lines[0] == "5 layers cannot be compressed:"
    assert lines[1] == f"  {Q1}: quantised (Linear)"
    assert lines[2].startswith("  model.layers.*.mlp.gate (2 layers): holds matrices outside ")
    answer = lines[-1].partition("model.skip=")[2].strip("[]").split(",")
    # Block 0's q_proj is sound: no pattern takes it along.
    assert answer == ["*.k_proj", Q1, "model.layers.*.mlp.gate", "model.layers.*.mlp.experts"]
    assert "model.layers.0.self_attn.q_proj" in find_linears(model, answer, strict=True)


class ScaledLinear(nn.Linear):
    """Computes something else than x Wᵀ + b."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class RenamedLinear(nn.Linear):
    """A subclass that computes what its parent does."""


class OwnLinear(nn.Linear):
    """Computes what its parent does in its own words, as Falcon's does."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T if self.bias is None else x @ self.weight.T + self.bias


class AdaptedLinear(nn.Linear):
    """Adds what stands beside its weight."""

    def __init__(self, n: int, m: int) -> None:
        super().__init__(n, m)
        self.adapter = nn.Linear(n, m)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.adapter(x)


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


def float8_linear() -> nn.Linear:
    return nn.Linear(32, 48, bias=False).to(torch.float8_e4m3fn)


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


SHARES = "its weight is shared with another module"
REFUSED: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "shared": (lambda: sharing(Q1, Q0), Q0.replace("0", "*"), SHARES),
    "shared outside": (lambda: sharing("lm_head", Q0), Q0, SHARES),
    "shared module": (shared_module, Q0, SHARES),
    "int8": (lambda: with_layer(integer_linear()), UP1, "quantised"),
    "float8": (lambda: with_layer(float8_linear()), UP1, "quantised"),
    "packed": (lambda: with_layer(PackedLinear()), UP1, "quantised"),
    "low-rank": (lambda: with_layer(of_rank(nn.Linear(32, 48), 3)), UP1, "low-rank already"),
}


@pytest.mark.parametrize(("make", "name", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_two_factors_cannot_replace_is_refused_by_name(
    make: Callable[[], nn.Module], name: str, reason: str
) -> None:
    with pytest.raises(NsvdError) as caught:
        find_linears(make(), [])
    message = str(caught.value)
    assert message.startswith((f"{name}: ", f"{name} (2 layers): "))
    assert reason in message
    assert message.endswith(f"model.skip=[{name}]")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [RenamedLinear, OwnLinear])
def test_a_subclass_that_computes_what_a_linear_does_is_compressed(
    kind: type[nn.Linear], bias: bool
) -> None:
    layer = kind(32, 48, bias=bias)
    assert find_linears(with_layer(layer), [])[UP1] is layer


@pytest.mark.parametrize("kind", [ScaledLinear, AdaptedLinear, nn.Conv1d])
def test_what_computes_something_else_is_no_linear(kind: Callable[..., nn.Module]) -> None:
    model = with_layer(kind(32, 48, 1) if kind is nn.Conv1d else kind(32, 48))
    found = survey(model, [])
    assert UP1 not in found.layers
    assert found.dense == {UP1: f"{kind.__name__}: weight"}
    with pytest.raises(LayersError, match=rf"^{UP1}: holds matrices .*skip=\[{UP1}\]"):
        find_linears(model, [], strict=True)


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
