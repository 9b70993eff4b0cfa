"""Gradients at the outputs of a model's layers on disk: one file for each layer.

FOLDER/<layer>.safetensors    what is known of the gradients of one layer
FOLDER/index.json             the names of all layers; written last, so that with it the folder
                              is complete
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from nsvd_exp.methods.statistics import TENSORS, OutputGradients
from nsvd_exp.storage.files import DamagedError, path_component, read_regular, write_text
from nsvd_exp.storage.tensors import FORMAT, load_tensors, save_tensors


class GradientsFolder(Mapping[str, OutputGradients]):
    """The gradients of each layer, read when they are asked for and held by nobody.

    Args:
        path: the folder; made when something is added.
        key: of what they were made from, which stands in every file.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key, self._index = path, key, path / "index.json"
        self._names: list[str] = []

    def add(self, layer: str, gradients: OutputGradients) -> None:
        """Write those of one layer.

        Raises:
            OSError, SafetensorError: they cannot be written.
        """
        about = {**self._about(layer), "size": gradients.size, "tokens": gradients.tokens}
        save_tensors(self._file(layer), gradients.tensors, about)
        if layer not in self._names:
            self._names.append(layer)

    @contextmanager
    def being_written(self) -> Iterator[None]:
        """Complete at the end; where an exception is raised inside, the folder is removed."""
        try:
            self._index.unlink(missing_ok=True)
            yield
            index = {"format": FORMAT, "key": self.key, "layers": self._names}
            write_text(self._index, json.dumps(index, indent=1) + "\n")
        except BaseException:
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def open(self, shapes: Mapping[str, Mapping[str, tuple[int, ...]]]) -> bool:
        """Whether it is complete, and has what is wanted; it may have more.

        Args:
            shapes: of the tensors that are wanted, by layer and name.

        Raises:
            DamagedError: a file is missing, damaged, of another version, or of something else.
        """
        if not os.path.exists(self._index):
            return False
        try:
            index = json.loads(read_regular(self._index))
            if (index["format"], index["key"]) != (FORMAT, self.key):
                raise DamagedError("it is of another version, or of something else")
            self._names = [str(name) for name in index["layers"]]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DamagedError(f"{self._index}: {error}") from None
        for layer, wanted in shapes.items():
            found = self._read(layer, check=True).tensors
            if not wanted.keys() <= found.keys():
                return False
            if any(tuple(found[name].shape) != shape for name, shape in wanted.items()):
                raise DamagedError(f"{self._file(layer)}: its tensors are not of this layer")
        return True

    def _about(self, layer: str) -> dict[str, str]:
        return {"key": self.key, "layer": layer}

    def _file(self, layer: str) -> Path:
        return self.path / f"{path_component('layer', layer)}.safetensors"

    def _read(self, layer: str, check: bool) -> OutputGradients:
        path = self._file(layer)
        tensors, about = load_tensors(path, self._about(layer), check)
        try:
            return OutputGradients(
                mean_square=tensors["mean_square"],
                **{name: tensors[name] for name in TENSORS & tensors.keys()},
                size=float(about["size"]),
                tokens=int(about["tokens"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{path}: {error}") from None

    def __getitem__(self, layer: str) -> OutputGradients:
        if layer not in self._names:
            raise KeyError(layer)
        return self._read(layer, check=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
