"""What a calibration holds in memory with memory=streamed, beside memory=resident.

    python benchmarks/streamed.py [--hidden 2048] [--blocks 6] [--samples 16] [--length 512]

A model of LLaMA's shape with random weights, float32, on a CPU. Each measurement is a fresh process
in which everything is imported and a tiny model was calibrated before; counted is the most it has
resident above that (VmHWM, which the kernel starts anew when `5` is written to clear_refs), so
mapped weights count from the moment their pages are read. malloc is told to give freed memory back
at once; otherwise it keeps blocks of up to 32 MB, and what is counted is not what is held. The unit
is what has to be there at once: the weights of one block, its statistics and the hidden states of
all samples.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Shape:
    """The model, and what it is calibrated on."""

    hidden: int = 2048
    blocks: int = 6
    vocabulary: int = 4096
    samples: int = 16
    length: int = 512

    @property
    def inner(self) -> int:
        """Width of the MLP, in LLaMA's proportion."""
        return -(-self.hidden * 8 // 3 // 128) * 128

    @property
    def block_bytes(self) -> int:
        """Weights of one block, float32."""
        return 4 * (4 * self.hidden**2 + 3 * self.hidden * self.inner)

    @property
    def statistics_bytes(self) -> int:
        """Gram matrices of the four inputs of a block, float64."""
        return 8 * (3 * self.hidden**2 + self.inner**2)

    @property
    def hidden_bytes(self) -> int:
        """Hidden states of all samples, float32."""
        return 4 * self.samples * self.length * self.hidden

    @property
    def unit(self) -> int:
        """What has to be in memory at once."""
        return self.block_bytes + self.statistics_bytes + self.hidden_bytes


def save_model(shape: Shape, folder: Path) -> None:
    """A checkpoint of this shape."""
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.blocks,
        num_attention_heads=shape.hidden // 64,
        max_position_embeddings=shape.length,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder, max_shard_size="1GB")


def calibrate_in(folder: Path, memory: str, samples: int, length: int) -> None:
    """Calibrate the model in this process, as a cell does; statistics go to a file."""
    import torch

    from nsvd_exp.config.sections import ModelConfig
    from nsvd_exp.methods.statistics import Calibration
    from nsvd_exp.models.layers import find_linears
    from nsvd_exp.models.loading import load_model, load_streamed
    from nsvd_exp.models.sources import locate_model
    from nsvd_exp.models.streamed import StreamedModel
    from nsvd_exp.pipeline.calibrate import calibrate
    from nsvd_exp.storage.tensors import StatisticsFolder

    source, config = locate_model(str(folder)), ModelConfig(name=str(folder), title="benchmark")
    ids = torch.randint(2, 90, (samples, length), generator=torch.Generator().manual_seed(0))
    kept = StatisticsFolder(folder / f"{memory}.statistics")
    if memory == "streamed":
        model, weights = load_streamed(source, config, "float32", folder)
        streamed = StreamedModel(model, weights, torch.device("cpu"), folder)
        _, reads = calibrate(streamed, find_linears(model, []), ids, add=kept.add)
        kept.finish(reads, {})
    else:
        model = load_model(source, config, "float32", "cpu")
        kept.save(Calibration(*calibrate(model, find_linears(model, []), ids)))


def measure_here(folder: Path, tiny: Path, memory: str, shape: Shape) -> dict[str, float]:
    """Bytes above the baseline of this process, which should be a fresh one."""
    calibrate_in(tiny, memory, 1, 16)  # imports, thread pools, buffers of the libraries
    baseline = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    calibrate_in(folder, memory, shape.samples, shape.length)
    return {"baseline": baseline, "above": _resident("VmHWM") - baseline}


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


def measure(shape: Shape, memories: tuple[str, ...] = ("streamed",)) -> dict[str, float]:
    """Bytes above the baseline over `shape.unit`, for each way of holding the model."""
    with tempfile.TemporaryDirectory() as name:
        folder, tiny = Path(name) / "model", Path(name) / "tiny"
        _python("save_models", shape, str(folder), str(tiny))
        return {
            memory: _python("measure_here", shape, str(folder), str(tiny), memory)["above"]
            / shape.unit
            for memory in memories
        }


def _python(step: str, shape: Shape, *arguments: str) -> dict[str, float]:
    """Do one step in a process of its own."""
    command = [sys.executable, __file__, "--step", step, json.dumps([asdict(shape), *arguments])]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _step(name: str, arguments: str) -> None:
    fields, *rest = json.loads(arguments)
    shape = Shape(**fields)
    if name == "save_models":
        save_model(shape, Path(rest[0]))
        save_model(Shape(hidden=64, blocks=1, vocabulary=99, length=16), Path(rest[1]))
        found: dict[str, float] = {}
    else:
        found = measure_here(Path(rest[0]), Path(rest[1]), rest[2], shape)
    print(json.dumps(found))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in asdict(Shape()).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options = vars(parser.parse_args())
    step = options.pop("step")
    if step:
        _step(*step)
        return
    shape = Shape(**options)
    ratios = measure(shape, ("streamed", "resident"))
    table = Table(title=f"Calibration {shape.samples} x {shape.length}, bytes above the baseline")
    for heading in ("memory", "MB", "over a block, its statistics and hidden states"):
        table.add_column(heading, justify="right")
    for memory, ratio in ratios.items():
        table.add_row(memory, f"{ratio * shape.unit / 1e6:.0f}", f"{ratio:.2f}")
    console = Console(width=90)
    console.print(table)
    console.print(
        f"a block {shape.block_bytes / 1e6:.0f} MB, of {shape.blocks}; statistics "
        f"{shape.statistics_bytes / 1e6:.0f} MB; hidden states {shape.hidden_bytes / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    main()
