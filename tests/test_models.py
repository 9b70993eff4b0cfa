"""A model is what its checkpoint says, or one message says why not."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
import transformers
from helpers.hub import empty_hub_cache
from helpers.models import CONFIGS, UP, edit_weights, make_model
from helpers.shared import SHARED, needs_shared
from sentencepiece import SentencePieceProcessor
from torch import Tensor

from nsvd_exp.config.sections import ModelConfig
from nsvd_exp.errors import NsvdError, OutOfMemoryError
from nsvd_exp.methods import CholeskyASVD, Uniform
from nsvd_exp.methods.statistics import Calibration
from nsvd_exp.models.layers import find_linears, replaced
from nsvd_exp.models.loading import (
    check_device,
    check_vocabulary,
    load_model,
    load_tokenizer,
    to_dtype,
)
from nsvd_exp.models.sources import locate_model
from nsvd_exp.models.storage import Factors
from nsvd_exp.pipeline.calibrate import calibrate
from nsvd_exp.pipeline.compress import Compressor, ranks_of
from nsvd_exp.pipeline.evaluate import window_nll

Save = Callable[..., Path]

STORIES = SHARED / "models" / "stories260k"


def load(folder: Path, dtype: str = "float32", device: str = "cpu", **options: Any) -> Any:
    config = ModelConfig(name=str(folder), title="test", **options)
    return load_model(locate_model(str(folder)), config, dtype, device)


def tokenizer_of(folder: Path, **options: Any) -> Any:
    config = ModelConfig(name=str(folder), title="test", tokenizer=options)
    return load_tokenizer(locate_model(str(folder)), config)


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_saved_model_comes_back_in_eval_mode(name: str, model_folder: Save) -> None:
    model, original = load(model_folder(name)), make_model(name)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    ids = torch.arange(2, 22)[None]
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, original(input_ids=ids).logits)


def test_half_precision_is_of_the_parameters_not_of_the_buffers(model_folder: Save) -> None:
    """Loaded in half precision or cast to it: the same numbers, rotary frequencies whole."""
    folder = model_folder()
    loaded, cast = load(folder, "bfloat16"), load(folder)
    to_dtype(cast, torch.bfloat16)
    for model in (loaded, cast):
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        assert {b.dtype for b in model.buffers()} == {torch.float32}
    ids = torch.arange(2, 22)[None]
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, cast(input_ids=ids).logits)


def test_a_tied_weight_stays_tied_when_cast() -> None:
    model = make_model("opt")
    to_dtype(model, torch.float16)
    assert model.lm_head.weight is model.get_input_embeddings().weight


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop(UP), f"the checkpoint lacks {UP} "),
        (lambda t: t.update({f"{UP}.more": torch.zeros(2)}), f"has, beyond .* knows, {UP}.more "),
        (lambda t: t.update({UP: torch.zeros(3, 4)}), rf"{UP} \(\(3, 4\), where \(48, 32\) belong"),
        (lambda t: t[UP].view(-1)[7].fill_(torch.nan), f"the weight {UP} holds NaN or Inf"),
        (lambda t: t[UP].view(-1)[7].fill_(-torch.inf), f"the weight {UP} holds NaN or Inf"),
    ],
    ids=["missing", "unexpected", "shape", "nan", "inf"],
)
def test_a_checkpoint_that_does_not_fit_names_the_weight(
    model_folder: Save, edit: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    folder = model_folder()
    edit_weights(folder, edit)
    with pytest.raises(NsvdError, match=message):
        load(folder)


def test_buffers_that_old_checkpoints_carry_are_no_obstacle(model_folder: Save) -> None:
    folder = model_folder()
    names = ("rotary_emb.inv_freq", "masked_bias")
    old = {f"model.layers.0.self_attn.{name}": torch.zeros(4) for name in names}
    edit_weights(folder, lambda tensors: tensors.update(old))
    assert load(folder)


def test_a_folder_without_weights_is_refused(model_folder: Save) -> None:
    folder = model_folder()
    (folder / "model.safetensors").unlink()
    with pytest.raises(NsvdError, match=r"has no weights \(no \*\.safetensors\)"):
        load(folder)


def test_pickled_weights_are_read_only_on_request(model_folder: Save) -> None:
    folder = model_folder()
    (folder / "model.safetensors").unlink()
    torch.save(make_model("llama").state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(NsvdError, match=r"only pickled weights .*model\.safetensors_only=false"):
        load(folder)
    loaded = load(folder, safetensors_only=False)
    assert torch.equal(loaded.get_parameter(UP), make_model("llama").get_parameter(UP))


@pytest.mark.parametrize("kept", [0, 4, 100, 5000])
def test_a_file_that_was_cut_off_is_said_to_be_damaged(model_folder: Save, kept: int) -> None:
    path = model_folder() / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(NsvdError, match="its weights are damaged"):
        load(path.parent)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    make_model("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    shards[1].unlink()
    with pytest.raises(NsvdError, match=shards[1].name):
        load(tmp_path)


def on_hub(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is in `folder`, from the hub cache."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    empty_hub_cache(cache, monkeypatch)("org/model", files)
    config = ModelConfig(name="org/model", title="test")
    return load_model(locate_model("org/model"), config, "float32", "cpu")


def test_a_hub_model_is_loaded_from_the_cache(
    model_folder: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = on_hub(model_folder(), tmp_path / "hub", monkeypatch)
    assert torch.equal(loaded.get_parameter(UP), make_model("llama").get_parameter(UP))


def test_a_hub_model_with_pickled_weights_alone_is_refused(
    model_folder: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model_folder()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(NsvdError, match=r"^org/model .*model\.safetensors_only=false"):
        on_hub(folder, tmp_path / "hub", monkeypatch)


def test_a_quantised_checkpoint_is_refused(model_folder: Save) -> None:
    folder = model_folder()
    edit_json(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(NsvdError, match="is quantised"):
        load(folder)


@pytest.mark.parametrize(
    "changes",
    [{"model_type": "unheard-of"}, {"model_type": "vit"}, {"hidden_size": 33}, {"vocab_size": "x"}],
    ids=["unknown", "no language model", "no multiple of the heads", "type"],
)
def test_a_config_that_makes_no_language_model_is_one_message(
    model_folder: Save, changes: dict[str, Any]
) -> None:
    folder = model_folder()
    edit_json(folder / "config.json", **changes)
    with pytest.raises(NsvdError, match="cannot be loaded: ") as caught:
        load(folder)
    assert len(str(caught.value)) < 700


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without CUDA")
def test_cuda_where_torch_cannot_use_it_is_an_error() -> None:
    check_device("cpu")
    with pytest.raises(NsvdError, match=r"device=cuda: .*use device=cpu"):
        check_device("cuda")


REMOTE_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class RemoteConfig(LlamaConfig):
    model_type = "remote_llama"

class RemoteForCausalLM(LlamaForCausalLM):
    config_class = RemoteConfig
"""


def test_code_of_a_model_runs_only_on_request(
    model_folder: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = str(tmp_path / "modules")
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = model_folder()
    (folder / "modeling_remote.py").write_text(REMOTE_CODE)
    auto_map = {
        "AutoConfig": "modeling_remote.RemoteConfig",
        "AutoModelForCausalLM": "modeling_remote.RemoteForCausalLM",
    }
    edit_json(folder / "config.json", model_type="remote_llama", auto_map=auto_map)
    with pytest.raises(NsvdError, match=r"model\.trust_remote_code=true"):
        load(folder)
    assert not Path(modules).exists()
    assert type(load(folder, trust_remote_code=True)).__name__ == "RemoteForCausalLM"


def test_the_tokenizer_of_the_folder_is_loaded(model_folder: Save) -> None:
    tokenizer = tokenizer_of(model_folder())
    assert tokenizer("w7 w50 nonsense")["input_ids"] == [7, 50, 0]


def damage(folder: Path, file: str, text: str | None) -> None:
    """Replace a file, or delete it."""
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text)


@pytest.mark.parametrize("text", [None, "", '{"version"', "{}", "[]", '{"added_tokens": []}'])
def test_a_tokenizer_without_its_files_is_one_message(model_folder: Save, text: str | None) -> None:
    folder = model_folder()
    damage(folder, "tokenizer.json", text)
    with pytest.raises(NsvdError, match="its tokenizer cannot be read; it needs a sound tokenizer"):
        tokenizer_of(folder)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("llama", "LlamaTokenizer"), ("gemma", "GemmaTokenizer"), ("opt", None), ("qwen3", None),
     ("llama", "T5Tokenizer")],
)  # fmt: skip
def test_a_tokenizer_of_special_tokens_alone_is_refused(
    model_folder: Save, name: str, kind: str | None
) -> None:
    folder = model_folder(name)
    damage(folder, "tokenizer.json", None)
    damage(folder, "tokenizer_config.json", json.dumps({"tokenizer_class": kind}) if kind else None)
    with pytest.raises(NsvdError, match="its tokenizer has no vocabulary"):
        tokenizer_of(folder)


@pytest.fixture
def sentencepiece_folder(tmp_path: Path) -> Path:
    """As LLaMA comes: a tokenizer.model and no tokenizer.json."""
    folder = tmp_path / "sentencepiece"
    folder.mkdir()
    for name in ("config.json", "tokenizer.model"):
        shutil.copy(STORIES / name, folder)
    return folder


# What jeffwan/llama-7b-hf ships beside its tokenizer.model: no special tokens, a misspelt class.
AS_LLAMA_7B = {
    "bos_token": "",
    "eos_token": "",
    "unk_token": "",
    "tokenizer_class": "LLaMATokenizer",
}
# What mends it; `idefics` is the name under which AutoTokenizer knows the class LlamaTokenizer.
MENDED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
MENDED |= {"tokenizer_type": "idefics"}


@needs_shared
def test_a_tokenizer_model_alone_is_enough(sentencepiece_folder: Path) -> None:
    tokenizer = tokenizer_of(sentencepiece_folder)
    text = "Once upon a time, there was a little girl."
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@needs_shared
def test_options_mend_a_tokenizer_to_what_sentencepiece_gives(sentencepiece_folder: Path) -> None:
    (sentencepiece_folder / "tokenizer_config.json").write_text(json.dumps(AS_LLAMA_7B))
    mended = tokenizer_of(sentencepiece_folder, **MENDED)
    reference = SentencePieceProcessor(str(STORIES / "tokenizer.model"))
    rows = (SHARED / "data/wikitext2/test.jsonl").read_text(encoding="utf-8").splitlines()[:50]
    for text in ("Once upon a time", "<unk> x <unk>", "\n\n".join(map(row_text, rows))):
        ids = mended(text, split_special_tokens=True)["input_ids"]
        assert ids == [reference.bos_id(), *reference.encode(text)]


def row_text(line: str) -> str:
    return json.loads(line)["text"]


def test_ids_the_model_has_no_embedding_for_are_refused() -> None:
    model = make_model("llama")
    check_vocabulary(model, torch.tensor([[0, 98]]))
    with pytest.raises(NsvdError, match="the id 99, but the model has 99 embeddings"):
        check_vocabulary(model, torch.tensor([[0, 99]]))


@pytest.mark.parametrize("name", ["llama_gqa", "opt"])
def test_a_model_that_is_spread_over_devices_is_worked_on_like_any_other(name: str) -> None:
    """With the hooks that move inputs between devices, as `device=cuda:all` has them."""
    model, ids = make_model(name), torch.arange(2, 74).view(6, 12)
    layers = find_linears(model, [])
    (inputs, _), losses = calibrate(model, layers, ids, 4), window_nll(model, ids, 4)
    places = {child: "cpu" for child, _ in model.named_children()}
    accelerate.dispatch_model(model, places, force_hooks=True)
    calibration = Calibration(*calibrate(model, layers, ids, 4))
    for read, statistics in calibration.inputs.items():
        assert torch.equal(statistics.gram, inputs[read].gram)
    assert window_nll(model, ids, 4) == losses
    ranks = ranks_of(layers, 0.01, Uniform(), Factors())
    compressor = Compressor(CholeskyASVD(), ranks, calibration, Factors(), torch.float32)
    compressed, _ = compressor.compress(layers)
    with replaced(model, compressed):
        assert window_nll(model, ids, 4) != losses
    assert window_nll(model, ids, 4) == losses


def test_a_model_that_all_gpus_together_cannot_hold_is_an_error(
    model_folder: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would leave the rest on the host and say nothing."""
    auto = transformers.AutoModelForCausalLM
    real, asked = auto.from_pretrained, []

    def partly_on_the_host(*args: Any, device_map: str, **options: Any) -> Any:
        asked.append(device_map)
        model, info = real(*args, **options)
        model.hf_device_map = {"model.embed_tokens": 0, "model.layers": 1, "lm_head": "cpu"}
        return model, info

    monkeypatch.setattr(auto, "from_pretrained", partly_on_the_host)
    with pytest.raises(OutOfMemoryError, match="does not fit on all GPUs together"):
        load(model_folder(), device="cuda:all")
    load(model_folder(), device="cuda:1")
    assert asked == ["balanced", "cuda:1"]
