"""What cannot be saved or loaded as it is: one clear message, and nothing half done."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.compressed import logits, make_compressed, make_dense, weights_in
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM

import nsvd_exp as nx
from nsvd_exp.models.layers import find_linears, replace
from nsvd_exp.models.loading import to_dtype
from nsvd_exp.models.lowrank import LowRankLinear

UP = "model.layers.0.mlp.up_proj"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved model."""
    return nx.save(make_compressed(), tmp_path / "saved")


def edit_weights(folder: Path, **tensors: Tensor | None) -> None:
    """Change tensors of a saved model; `__` stands for a dot, None takes one away."""
    weights = weights_in(folder)
    for name, tensor in tensors.items():
        weights.pop(name.replace("__", "."), None)
        if tensor is not None:
            weights[name.replace("__", ".")] = tensor
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def edit_config(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))


def refused(folder: Path, message: str) -> None:
    """Check that neither way of loading accepts a folder."""
    with pytest.raises(nx.NsvdError, match=message):
        nx.load(folder)
    nx.register()
    with pytest.raises((ValueError, RuntimeError, OSError, SafetensorError)):
        AutoModelForCausalLM.from_pretrained(folder)


LEFT = "model__layers__0__mlp__up_proj__left__weight"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({LEFT: None}, rf"lacks {UP}\.left\.weight \(1 in all\)"),
        ({"model__norm__weight": None}, r"lacks model\.norm\.weight"),
        ({"model__layers__0__extra": torch.ones(2)}, "beyond what the model knows, .*extra"),
        ({LEFT.replace("left", "middle"): torch.ones(2)}, "beyond .*up_proj.middle.weight"),
        ({LEFT: torch.ones(48, 12)}, rf"in another shape {UP}\.left\.weight"),
        ({"lm_head__weight": torch.ones(98, 32)}, r"in another shape lm_head\.weight"),
        ({LEFT: torch.ones(48, 13, dtype=torch.int8)}, f"weights of {UP} are no floating"),
    ],
)
def test_weights_that_are_not_those_of_the_model(
    folder: Path, tensors: dict[str, Tensor | None], message: str
) -> None:
    edit_weights(folder, **tensors)
    refused(folder, message)


def test_a_weight_that_is_not_finite(folder: Path) -> None:
    edit_weights(folder, **{LEFT: torch.full((48, 13), torch.nan)})
    with pytest.raises(nx.NsvdError, match=rf"{UP}\.left\.weight holds NaN or Inf"):
        nx.load(folder)


def quantization(config: dict[str, Any], **values: Any) -> None:
    config["quantization_config"] |= values


def form(config: dict[str, Any], **values: Any) -> None:
    config["quantization_config"]["layers"][UP] |= values


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: quantization(c, version=2), "version 2, and this code reads 1"),
        (lambda c: quantization(c, layers={}), "no table of low-rank layers"),
        (lambda c: quantization(c, layers=[UP]), "no table of low-rank layers"),
        (lambda c: quantization(c, group_size=8), "no table of low-rank layers"),
        (lambda c: form(c, k=12), rf"in another shape .*{UP}\.left"),
        (lambda c: form(c, k=33), f"no storage, m, n and k of {UP}, but .*33"),
        (lambda c: form(c, k="13"), f"no storage, m, n and k of {UP}"),
        (lambda c: form(c, bits=4), f"no storage, m, n and k of {UP}"),
        (lambda c: form(c, m=64), rf"{UP} has the shape \(64, 32\).* and \(48, 32\) by the rest"),
        (lambda c: form(c, storage="tucker"), f"{UP} is stored as 'tucker'; known here: factors"),
        (
            lambda c: c["quantization_config"]["layers"].pop(UP),
            rf"lacks {UP}\.weight|beyond what the model knows, {UP}|another shape {UP}",
        ),
        (
            lambda c: c["quantization_config"]["layers"].update(
                {"model.layers.9.mlp.up_proj": {"storage": "factors", "m": 48, "n": 32, "k": 3}}
            ),
            r"has no dense layer model\.layers\.9\.mlp\.up_proj",
        ),
        (lambda c: c.update(num_hidden_layers=1), r"has no dense layer model\.layers\.1\."),
        (lambda c: c.update(hidden_size=48), "by quantization_config"),
        (lambda c: c.update(vocab_size=98), "in another shape"),
        (lambda c: c.pop("quantization_config"), r"beyond what the architecture knows, \S+left"),
        (lambda c: c.update(model_type="nothing"), "cannot be loaded"),
    ],
)
def test_a_configuration_that_does_not_fit(
    folder: Path, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_config(folder, edit)
    refused(folder, message)


def test_a_folder_in_another_format(folder: Path) -> None:
    edit_config(folder, lambda c: c.update(quantization_config={"quant_method": "gptq", "bits": 4}))
    with pytest.raises(nx.NsvdError, match="in the format 'gptq'"):
        nx.load(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "no folder of a model: it has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json holds no JSON object"),
        (lambda f: (f / "model.safetensors").unlink(), "lacks model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 99), "cannot be loaded"),
        (
            lambda f: (f / "model.safetensors").write_bytes(
                (f / "model.safetensors").read_bytes()[:-9]
            ),
            "cannot be loaded",
        ),
    ],
)
def test_a_folder_that_is_no_model(
    folder: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(folder)
    refused(folder, message)


def test_a_folder_that_is_not_there_or_not_whole(tmp_path: Path) -> None:
    with pytest.raises(nx.NsvdError, match=r"there is no folder .*/nothing"):
        nx.load(tmp_path / "nothing")
    folder = nx.save(make_compressed(), tmp_path / "saved", max_shard_size="20KB")
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    refused(folder, f"lacks {shard.name}: it is no model, or was not copied whole")


def test_without_this_code_transformers_does_not_fill_it_with_random_weights(folder: Path) -> None:
    """As it would: where it does not know the method, it leaves it out with a warning."""
    edit_config(folder, lambda c: quantization(c, quant_method="a_method_that_nobody_knows"))
    for kind in (AutoModelForCausalLM, LlamaForCausalLM):
        with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
            kind.from_pretrained(folder)


def test_transformers_cannot_make_a_dense_model_low_rank(folder: Path, tmp_path: Path) -> None:
    nx.register()
    quantization_config = nx.load(folder).config.quantization_config
    make_dense().save_pretrained(tmp_path / "dense")
    with pytest.raises(ValueError, match="pre-quantized"):
        AutoModelForCausalLM.from_pretrained(
            tmp_path / "dense", quantization_config=quantization_config
        )


class Adapted(nn.Linear):
    """A Linear with more weights than its own."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base.in_features, base.out_features, bias=False)
        self.lora = nn.Linear(2, 2)


class OwnLayer(LowRankLinear):
    """A layer of one's own form of storage: with a scale."""

    def __init__(self, layer: LowRankLinear) -> None:
        super().__init__(layer.left.weight, layer.right.weight, None)
        self.scale = nn.Parameter(torch.ones(1))


def adapted(model: Any) -> Any:
    model.get_submodule(UP).left = Adapted(model.get_submodule(UP).left)
    return model


def with_own_layer(model: Any) -> Any:
    replace(model, {UP: OwnLayer(model.get_submodule(UP))})
    return model


def with_parallel(model: Any) -> Any:
    replace(model, {UP: nn.Sequential(nn.Linear(32, 48), nn.Identity())})
    return model


def half(model: Any) -> Any:
    layer = model.get_submodule(UP)
    to_dtype(layer, torch.float16)
    return model


def with_other_vocabulary(model: Any) -> Any:
    model.lm_head = nn.Linear(32, 98, bias=False)
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_dense, "has no low-rank layer: compress it, or"),
        (lambda: nn.Linear(2, 2), "a Linear is no model of transformers itself"),
        (lambda: adapted(make_compressed()), f"{UP} holds something else than its factors"),
        (lambda: with_own_layer(make_compressed()), f"{UP} holds something else than its factors"),
        (
            lambda: with_parallel(make_compressed()),
            rf"{UP}\.0\.bias has the shape \(48,\), and .* none: .* cannot be loaded",
        ),
        (lambda: half(make_compressed()), rf"{UP}\.\S+ has the dtype torch.float16, and"),
        (lambda: make_compressed().bfloat16(), "inv_freq was rounded to torch.bfloat16"),
        (lambda: make_compressed().to("meta"), r"the weight \S+ is not in memory"),
        (
            lambda: with_other_vocabulary(make_compressed()),
            r"lm_head\.weight has the shape \(98, 32\), and .* \(99, 32\)",
        ),
    ],
)
def test_a_model_that_would_not_come_back_is_not_saved(
    make: Callable[[], Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(nx.NsvdError, match=message):
        nx.save(make(), tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


class FailingTokenizer:
    """Breaks off after its first file."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def save_pretrained(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{")
        raise self.error


def test_what_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    model = make_compressed()
    before, config = logits(model), model.config
    for error, expected in (
        (OSError(errno.ENOSPC, "No space left on device"), nx.NsvdError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (RuntimeError("a bug"), RuntimeError),
    ):
        with pytest.raises(expected, match=r"No space left|^$|a bug"):
            nx.save(model, tmp_path / "deep" / "saved", FailingTokenizer(error))
        assert list((tmp_path / "deep").iterdir()) == []
    assert model.config is config
    assert not hasattr(model, "hf_quantizer")
    assert torch.equal(logits(model), before)
    nx.save(model, tmp_path / "deep" / "saved")


def test_what_is_there_already_stays(tmp_path: Path) -> None:
    model = make_compressed()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("full", "file", "link"):
        with pytest.raises(nx.NsvdError, match=f"{name} is there already, and not an empty folder"):
            nx.save(model, tmp_path / name)
    assert (tmp_path / "full" / "mine.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    with pytest.raises(nx.NsvdError, match="below cannot be written"):
        nx.save(model, tmp_path / "file" / "below")
    assert len(list(tmp_path.iterdir())) == 3


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(nx.NsvdError, match=r"unknown format 'densee'. Did you mean dense"):
        nx.save(make_compressed(), tmp_path / "saved", format="densee")


def test_a_product_that_its_dtype_cannot_hold_is_refused(tmp_path: Path) -> None:
    model = make_dense(dtype=torch.float16)
    layers = find_linears(model, [])
    large = {
        UP: LowRankLinear(torch.full((48, 2), 3e4).half(), torch.full((2, 32), 9.0).half(), None)
    }
    assert large.keys() <= layers.keys()
    replace(model, large)
    with pytest.raises(nx.NsvdError, match=f"factors of {UP} is not finite in torch.float16"):
        nx.save(model, tmp_path / "dense", format="dense")
    assert list(tmp_path.iterdir()) == []
    nx.save(model, tmp_path / "factors")


def test_a_generation_config_that_contradicts_itself_is_refused_by_name(tmp_path: Path) -> None:
    model = make_compressed()
    model.generation_config.temperature = 0.5  # without do_sample
    with pytest.raises(nx.NsvdError, match=r"cannot be saved: .*temperature"):
        nx.save(model, tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []
