"""Processes that know the package, only the files that travel, or neither; PEFT; torch.compile."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import REPOSITORY
from helpers.compressed import ARCHITECTURES, IDS, generated, logits, make_compressed
from torch import nn

import nsvd_exp as nx
from nsvd_exp.models.modeling_nsvd import TRAVELLING

pytestmark = pytest.mark.slow

# Loads each folder, computes, saves again with transformers; prints what it was refused.
LOADING = """
import json, sys
from pathlib import Path

how, folders, out = sys.argv[1], sys.argv[2].split(","), Path(sys.argv[3])
if how == "registered":
    import nsvd_exp
    assert "torch" not in sys.modules
    nsvd_exp.register()
else:
    sys.modules["nsvd_exp"] = None  # an import of it fails
import torch
from transformers import AutoModelForCausalLM

ids = torch.tensor(json.loads(sys.argv[4]))
options = {"trust_remote_code": True} if how == "travelling" else {}
refused = {}
for folder in map(Path, folders):
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, **options)
    except Exception as error:
        refused[folder.name] = f"{type(error).__name__}: {error}"
        continue
    with torch.no_grad():
        torch.save(model(input_ids=ids).logits, out / f"{folder.name}.pt")
    model.save_pretrained(out / folder.name)
print(json.dumps(refused))
"""


def in_a_process(how: str, folders: list[Path], out: Path, modules: Path) -> dict[str, str]:
    """What such a process was refused, by the name of the folder."""
    out.mkdir()
    arguments = [how, ",".join(map(str, folders)), str(out), json.dumps(IDS.tolist())]
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", LOADING, *arguments],
        env=outside | {"HF_MODULES_CACHE": str(modules)},
        cwd=REPOSITORY if how == "registered" else out,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    refused = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(refused, dict)
    return refused


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """One of each architecture, in turns in float32 and bfloat16, and one that has both."""
    dtypes = (torch.float32, torch.bfloat16)
    made = {n: make_compressed(n, dtypes[i % 2]) for i, n in enumerate(ARCHITECTURES)}
    return made | {"llama in bfloat16": make_compressed("llama", torch.bfloat16)}


@pytest.fixture(scope="module")
def folders(models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    parent = tmp_path_factory.mktemp("models")
    return [nx.save(model, parent / name) for name, model in models.items()]


@pytest.mark.parametrize("how", ["registered", "travelling"])
def test_a_new_process_computes_the_same(
    how: str, models: dict[str, Any], folders: list[Path], tmp_path: Path
) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    assert in_a_process(how, folders, out, tmp_path / "modules") == {}
    saved = [out / folder.name for folder in folders]
    assert in_a_process("travelling", saved, again, tmp_path / "modules") == {}
    for name, model in models.items():
        expected = logits(model)
        for place in (out, again):
            assert torch.equal(torch.load(place / f"{name}.pt"), expected), name
            for file in TRAVELLING:
                assert (place / name / file).read_bytes() == (folders[0] / file).read_bytes()
        assert torch.equal(logits(nx.load(again / name)), expected), name


def test_a_process_that_knows_neither_is_refused(folders: list[Path], tmp_path: Path) -> None:
    refused = in_a_process("neither", folders, tmp_path / "out", tmp_path / "modules")
    assert refused.keys() == {folder.name for folder in folders}
    assert all("ignore_mismatched_sizes" in message for message in refused.values())
    assert list((tmp_path / "out").iterdir()) == []


TWO_COPIES = """
import sys
from transformers import AutoModelForCausalLM
import nsvd_exp as nx

folder, out = sys.argv[1:]
copy = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
assert type(copy.hf_quantizer).__module__.startswith("transformers_modules.")
try:
    nx.save(copy, out)
except nx.NsvdError as error:
    print(error)
nx.save(nx.load(folder), out)
again = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)
assert type(again.hf_quantizer).__module__ == "nsvd_exp.models.modeling_nsvd"
"""


def test_the_package_stands_above_a_copy_of_its_files(folders: list[Path], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWO_COPIES, str(folders[0]), str(tmp_path / "out")],
        env=os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules")},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the model runs the code of its own folder: load it with nx.load\n"


@pytest.mark.parametrize("name", TRAVELLING)
def test_the_files_that_travel_import_nothing_of_the_package(name: str) -> None:
    tree = ast.parse((REPOSITORY / "nsvd_exp/models" / name).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert all(alias.name.split(".")[0] != "nsvd_exp" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            assert f"{node.module}.py" in TRAVELLING
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] != "nsvd_exp"


def trained(model: Any, steps: int = 5) -> list[float]:
    """The loss before each step of training, and after the last."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=IDS, labels=IDS).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        return [*losses, model(input_ids=IDS, labels=IDS).loss.item()]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_lora_on_the_factors(name: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    original = make_compressed(name)
    folder = nx.save(original, tmp_path / "saved")
    settings = peft.LoraConfig(r=2, target_modules=["left", "right"], task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(nx.load(folder), settings)
    adapted.eval()
    assert torch.equal(logits(adapted), logits(original))
    losses = trained(adapted)
    assert losses[1] < losses[0]
    assert losses[-1] < losses[0]

    # The adapter goes onto the same folder, and into the factors.
    adapted.save_pretrained(tmp_path / "adapter")
    again = peft.PeftModel.from_pretrained(nx.load(folder), tmp_path / "adapter").eval()
    assert torch.equal(logits(again), logits(adapted))
    with pytest.raises(nx.NsvdError, match="save what merge_and_unload"):
        nx.save(adapted, tmp_path / "not merged")
    merged = again.merge_and_unload()
    torch.testing.assert_close(logits(merged), logits(adapted))
    nx.save(merged, tmp_path / "merged")
    assert torch.equal(logits(nx.load(tmp_path / "merged")), logits(merged))


def test_an_adapter_of_transformers_itself_is_saved_alone(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", minversion="0.22")
    model: Any = nx.load(nx.save(make_compressed(), tmp_path / "saved"))
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["left"], init_lora_weights=False))
    model.eval().save_pretrained(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    again: Any = nx.load(tmp_path / "saved")
    again.load_adapter(str(tmp_path / "adapter"))
    assert torch.equal(logits(again), logits(model))
    with pytest.raises(nx.NsvdError, match="merge an adapter first"):
        nx.save(model, tmp_path / "not merged")


def test_the_trainer_of_transformers_takes_it(tmp_path: Path) -> None:
    validate = pytest.importorskip("transformers.trainer_utils")
    model = nx.load(nx.save(make_compressed(), tmp_path / "saved"))
    validate.validate_quantization_for_training(model)
    losses = trained(model)
    assert losses[-1] < losses[0]


def test_it_is_compiled(tmp_path: Path) -> None:
    model = make_compressed()
    loaded: Any = nx.load(nx.save(model, tmp_path / "saved"))
    graphs: list[int] = []

    def counted(graph: Any, inputs: Any) -> Callable[..., Any]:
        graphs.append(sum(node.target is nn.functional.linear for node in graph.graph.nodes))
        run: Callable[..., Any] = torch._inductor.compile(graph, inputs)
        return run

    with torch.no_grad():
        found = torch.compile(loaded, backend=counted)(input_ids=IDS, use_cache=False).logits
    torch.testing.assert_close(found, logits(model), rtol=1e-4, atol=1e-5)
    # One graph, with both products of all fourteen layers in it, and the head.
    assert graphs == [2 * 14 + 1]
    assert torch.equal(generated(loaded), generated(model))
