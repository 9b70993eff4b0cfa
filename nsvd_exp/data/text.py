"""The rows of a dataset as documents, and the documents as one text."""

from __future__ import annotations

import gzip
import json
import string
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet

from nsvd_exp.config.schema import DatasetConfig
from nsvd_exp.data.sources import DatasetSource
from nsvd_exp.errors import NsvdError
from nsvd_exp.models.hub import hub_file
from nsvd_exp.storage.keys import file_digest

Row = dict[str, Any]


def text_of(dataset: DatasetConfig, split: str, source: DatasetSource) -> str:
    """The documents of a split as one text, joined as the dataset's protocol says.

    Raises:
        NsvdError: no rows, or a row without a field the document needs.
    """
    if source.path is not None:
        if file_digest(source.path) != source.identity["sha256"]:
            raise NsvdError(f"{source.path} was changed after the run began: run it again")
        rows, place = read_rows(source.path), str(source.path)
    else:
        rows, place = _hub_rows(dataset, split, source), f"{dataset.hub} ({split})"
    documents = [
        _document(row, dataset.document, source.path is not None, f"{place}, row {number}")
        for number, row in enumerate(islice(rows, dataset.rows), start=1)
    ]
    if not documents:
        raise NsvdError(f"dataset {dataset.name}: {place} has no rows")
    return dataset.join.join(documents)


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a .jsonl, .json, .json.gz, .parquet or .txt file.

    A .txt file is one row with the field `text`.

    Raises:
        NsvdError: the file is not what its name says.
    """
    try:
        if path.suffix == ".parquet":
            for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1024):
                yield from batch.to_pylist()
        elif path.suffix == ".txt":
            yield {"text": path.read_text(encoding="utf-8")}
        else:
            yield from _json_rows(path)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise NsvdError(f"{path} cannot be read: {error}") from None


def _json_rows(path: Path) -> Iterator[Row]:
    """A JSON list of objects, or JSON Lines, with one object in each line."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        first = file.read(1)
        file.seek(0)
        number = 0
        try:
            if first == "[":
                rows: Iterator[Any] = iter(json.load(file))
            else:
                rows = (json.loads(line) for line in file if line.strip())
            for number, row in enumerate(rows, start=1):
                if not isinstance(row, dict):
                    raise NsvdError(f"{path}, row {number}: expected an object, found {row!r:.40}")
                yield row
        except json.JSONDecodeError as error:
            raise NsvdError(f"{path} is not JSON (Lines), after {number} rows: {error}") from None


def _hub_rows(dataset: DatasetConfig, split: str, source: DatasetSource) -> Iterator[Row]:
    assert source.commit is not None
    names = dataset.files.get(split, [])
    try:
        files = [hub_file(dataset.hub, name, source.commit, "dataset") for name in names]
    except NsvdError as error:
        message = f"dataset {dataset.name}: {source.sought} is not there, and {error}"
        raise NsvdError(message) from None
    for file in files:
        yield from read_rows(file)
    if not files:
        yield from _load_split(dataset, dataset.splits[split], source)


def _load_split(dataset: DatasetConfig, split: str, source: DatasetSource) -> Iterator[Row]:
    """A hub dataset that names no files: its own splits, as the `datasets` library reads them."""
    import datasets

    try:
        rows = datasets.load_dataset(
            dataset.hub, dataset.config, split=split, revision=source.commit
        )
    except (ValueError, RuntimeError, OSError, datasets.exceptions.DatasetsError) as error:
        raise NsvdError(
            f"dataset {dataset.name}: {source.sought} is not there, and {dataset.hub} cannot be "
            f"loaded: {error}. If it has a "
            "loading script, name its parquet files in conf/dataset (files:, and revision: "
            "refs/convert/parquet)"
        ) from None
    yield from rows


class Template(string.Formatter):
    """`str.format`, except that null counts as missing; `str.format` would write `None`."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        """The value of `field_name`, such as `answers[text][0]`, and its first part.

        Raises:
            LookupError: the row does not have it.
        """
        try:
            found = super().get_field(field_name, args, kwargs)
        except (LookupError, AttributeError, TypeError):
            raise LookupError(f"field '{field_name}' is missing") from None
        if found[0] is None:
            raise LookupError(f"field '{field_name}' is null")
        return found


def _document(row: Row, template: str, is_local: bool, place: str) -> str:
    """The document of one row. A local row's `text` field is the document, where it has one."""
    if is_local and isinstance(row.get("text"), str):
        return str(row["text"])
    try:
        return Template().vformat(template, (), row)
    except (LookupError, ValueError) as error:
        fields = ", ".join(sorted(map(str, row)))
        raise NsvdError(
            f"{place}: {error.args[0]}; the document is '{template}', the row has: {fields}"
        ) from None
