"""The rows of a dataset as documents, and the documents as one text."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import string
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.ipc
import pyarrow.parquet

from nsvd_exp.config.sections import DatasetConfig
from nsvd_exp.data.sources import DatasetSource, files_digest
from nsvd_exp.errors import NsvdError
from nsvd_exp.models.hub import hub_file

Row = dict[str, Any]

# Characters in one field of a CSV file; Python's own limit is 131072, less than some documents.
LONGEST_FIELD = 2**31 - 1


def text_of(dataset: DatasetConfig, split: str, source: DatasetSource) -> str:
    """The documents of a split as one text, joined as the dataset's protocol says.

    Raises:
        NsvdError: no rows, or a row without a field the document needs.
    """
    if source.files:
        if files_digest(source.files) != source.identity["sha256"]:
            raise NsvdError(f"{source.files[0]} was changed after the run began: run it again")
        rows, place = _numbered(source.files), str(source.files[0])
    else:
        place = f"{dataset.hub} ({split})"
        hub_rows = enumerate(_hub_rows(dataset, split, source), start=1)
        rows = ((f"{place}, row {number}", row) for number, row in hub_rows)
    documents = [
        _document(row, dataset.document, bool(source.files), where)
        for where, row in islice(rows, dataset.rows)
    ]
    if not documents:
        raise NsvdError(f"dataset {dataset.name}: {place} has no rows")
    return dataset.join.join(documents)


def special_tokens_in(tokenizer: Any, text: str) -> list[str]:
    """The special tokens of a tokenizer of Hugging Face that stand in a text, spelt out."""
    return [token for token in tokenizer.all_special_tokens if token in text]


def special_tokens_note(name: str, setting: str, tokens: Sequence[str]) -> str:
    """What to say of special tokens that stand in the text of a dataset.

    Args:
        setting: the dataset's place in the configuration.
    """
    return (
        f"dataset {name}: its text holds {', '.join(tokens)}, which the tokenizer reads as special "
        f"tokens; {setting}.split_special_tokens=true reads them as ordinary characters"
    )


def _numbered(files: Sequence[Path]) -> Iterator[tuple[str, Row]]:
    """The rows of all files, each with its file and its number in there."""
    for file in files:
        for number, row in enumerate(read_rows(file), start=1):
            yield f"{file}, row {number}", row


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a .jsonl, .json, .csv (also .gz), .parquet, .arrow or .txt file.

    A .txt file is one row with the field `text`. The mark that some editors put in front of UTF-8
    is no part of the text.

    Raises:
        NsvdError: the file is not what its name says.
    """
    try:
        if path.suffix == ".parquet":
            for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1024):
                yield from batch.to_pylist()
        elif path.suffix == ".arrow":
            with pyarrow.ipc.open_stream(path) as stream:
                for batch in stream:
                    yield from batch.to_pylist()
        elif path.suffix == ".txt":
            yield {"text": path.read_text(encoding="utf-8-sig")}
        elif path.suffix == ".csv":
            yield from _csv_rows(path)
        else:
            yield from _json_rows(path)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise NsvdError(f"{path} cannot be read: {error}") from None


def _json_rows(path: Path) -> Iterator[Row]:
    """A JSON list of objects, or JSON Lines, with one object in each line."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        first = next((line for line in map(_without_bom, file) if line.strip()), b"")
        file.seek(0)
        rows = _listed(path, file) if first.lstrip()[:1] == b"[" else _lines(path, file)
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, dict):
                raise NsvdError(f"{path}, row {number}: expected an object, found {row!r:.40}")
            yield row


def _listed(path: Path, file: BinaryIO | gzip.GzipFile) -> Iterator[Any]:
    try:
        yield from json.load(file)
    except (json.JSONDecodeError, RecursionError) as error:
        raise NsvdError(f"{path} is not JSON: {error}") from None


def _lines(path: Path, file: BinaryIO | gzip.GzipFile) -> Iterator[Any]:
    number = 0
    for line in map(_without_bom, file):
        if line.strip():
            number += 1
            try:
                yield json.loads(line.decode())
            except (json.JSONDecodeError, RecursionError) as error:
                message = getattr(error, "msg", error)
                raise NsvdError(f"{path}, row {number} is not JSON: {message}") from None
            except UnicodeDecodeError as error:
                raise NsvdError(f"{path}, row {number} cannot be read: {error}") from None


def _without_bom(line: bytes) -> bytes:
    return line.removeprefix(codecs.BOM_UTF8)


def _csv_rows(path: Path) -> Iterator[Row]:
    """Rows under the names of the first line."""
    csv.field_size_limit(LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as file:
        number = 0
        try:
            for number, row in enumerate(csv.DictReader(file, strict=True), start=1):
                if None in row:
                    raise NsvdError(f"{path}, row {number}: it has more fields than the first line")
                yield row
        except csv.Error as error:
            raise NsvdError(f"{path}, row {number + 1} is not CSV: {error}") from None


def _hub_rows(dataset: DatasetConfig, split: str, source: DatasetSource) -> Iterator[Row]:
    assert source.commit is not None
    assert dataset.hub is not None
    names = dataset.files.get(split, [])
    try:
        files = [hub_file(dataset.hub, name, source.commit, "dataset") for name in names]
    except NsvdError as error:
        message = f"dataset {dataset.name}: {source.absent}, and {error}"
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
            f"dataset {dataset.name}: {source.absent}, and {dataset.hub} cannot be "
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
