"""What the models write, in the report: by prompt, the dense model's text first, whatever it is."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.report_store import ENVIRONMENT, MEASURED, make_cell

from nsvd_exp.report.__main__ import main
from nsvd_exp.report.model.report import gather
from nsvd_exp.storage.results import CONTINUATIONS, Result, cell_file, result_paths, subject_file

PROMPT = "To bake a *good* loaf"
AWKWARD = {
    "markup": "<script>alert(1)</script> &lt; ![x](http://x) **b** `c` </dd>",
    "lines": "\n\n= Head =\r\n  - item\n1. one\n\n\n# two\n",
    "control": "\x00\x1b[31mred\x85\ud800\ttab",
    "long": "x" * 20_000,
    "nothing": "",
}


def store(results_dir: Path, cell: Result, text: str, **changes: Any) -> Result:
    """Store what the model of a cell made of PROMPT; `changes` replace fields of the record."""
    subject = cell_file(results_dir, cell["method"], cell["identity"]).folder.name
    dtype = changes.get("dtype", "float32")
    identity = {"cell": cell["key"], "dtype": dtype, "version": changes.pop("made_by", 1)}
    made = {"prompt": PROMPT, "text": text, "tokens": 1, "has_ended": text == ""}
    file = subject_file(results_dir, CONTINUATIONS, subject, identity)
    record = {
        "version": 1,
        "status": "done",
        "key": file.key,
        "identity": identity,
        "created": MEASURED,
        "subject": subject,
        "dtype": dtype,
        "tokens": 48,
        **{name: cell[name] for name in ("model", "method", "ratio", "k1")},
        "texts": [made],
        "environment": ENVIRONMENT,
    } | changes
    file.write(record)
    return record


def lines_of(results_dir: Path) -> list[tuple[str, float | None, float | None, str]]:
    """Method, ratio, k1 and text of the only model, in order."""
    (group,) = gather(str(results_dir)).continuations
    lines = group.prompts[PROMPT]
    return [(line.method.title, line.row.ratio, line.row.k1, line.stored["text"]) for line in lines]


def test_they_stand_as_in_tables_and_the_newest_counts(tmp_path: Path) -> None:
    for method, ratio, k1 in (
        ("nsvd_i", 0.5, 0.95), ("nsvd_i", 0.3, 0.9), ("nsvd_i", 0.3, 0.95), ("svd", 0.3, None),
        ("dense", 0.3, None),
    ):  # fmt: skip
        store(tmp_path, make_cell(tmp_path, method=method, ratio=ratio, k1=k1), f"by {method}")
    again = make_cell(tmp_path, method="svd")
    store(tmp_path, again, "newer", made_by=2, created=MEASURED.replace("2026", "2027"))
    assert lines_of(tmp_path) == [
        ("Original", None, None, "by dense"), ("SVD", 0.3, None, "newer"),
        ("NSVD-I", 0.3, 0.95, "by nsvd_i"), ("NSVD-I", 0.3, 0.9, "by nsvd_i"),
        ("NSVD-I", 0.5, 0.95, "by nsvd_i"),
    ]  # fmt: skip


def test_two_seeds_are_told_apart_and_models_stand_apart(tmp_path: Path) -> None:
    cells = [make_cell(tmp_path, seed=seed) for seed in (3, 4)]
    for cell in cells:
        store(tmp_path, cell, "text")
    (group,) = gather(str(tmp_path)).continuations
    origins = [line.origin for line in group.prompts[PROMPT]]
    assert len(set(origins)) == 2
    assert all(any(cell["key"][:16] in origin for origin in origins) for cell in cells)
    store(tmp_path, make_cell(tmp_path, "llama-7b"), "text")
    assert [g.model for g in gather(str(tmp_path)).continuations] == ["llama-7b", "tiny"]
    assert [g.model for g in gather(str(tmp_path), model="tiny").continuations] == ["tiny"]


@pytest.mark.parametrize("kind", AWKWARD)
def test_a_text_is_shown_as_text_whatever_it_holds(tmp_path: Path, kind: str) -> None:
    # JSON holds half of a character, which UTF-8 does not, as an escape.
    store(tmp_path, make_cell(tmp_path, method="dense"), AWKWARD[kind])
    assert main([str(tmp_path), "--format", "md,html"]) == 0
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    (shown,) = re.findall(r'<dd dir="auto">(.*?)</dd>', page)
    kept = AWKWARD[kind].replace("\r\n", "\n")
    assert html.unescape(shown) == "…" + re.sub("[\x00\x1b\x85\ud800]", "�", kept)
    assert "<" not in shown
    document = (tmp_path / "report" / "continuations.md").read_text(encoding="utf-8")
    *_, block = document.split("**\n\n")
    for line in block.rstrip("\n").split("\n"):
        assert line == ">" or line.startswith("> ")
        inside = line.removeprefix("> ").removesuffix("\\")
        assert not re.search(r"(?<!\\)[<>*`\[\]&#|_]|^\s*(-|=|\d+\.)", inside.removeprefix(">"))
    assert ("ended after 1 token" in page) == (kind == "nothing")


def test_a_file_that_cannot_be_shown_costs_itself_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(tmp_path, make_cell(tmp_path, method="dense"), "kept")
    store(tmp_path, make_cell(tmp_path, method="svd"), "lost", texts=[{"prompt": PROMPT}])
    store(tmp_path, make_cell(tmp_path, method="asvd_0"), "lost", method=["asvd_0"])
    cut = make_cell(tmp_path, method="asvd_i")
    store(tmp_path, cut, "lost")
    (path,) = (p for p in result_paths(tmp_path, CONTINUATIONS) if "asvd_i-" in p.parent.name)
    path.write_bytes(path.read_bytes()[:-20])
    assert main([str(tmp_path), "--format", "md"]) == 1
    assert capsys.readouterr().err.count("error:") == 3
    assert [text for *_, text in lines_of(tmp_path)] == ["kept"]


def test_without_them_nothing_is_said(tmp_path: Path) -> None:
    make_cell(tmp_path, method="dense")
    assert main([str(tmp_path), "--format", "md,html"]) == 0
    assert not (tmp_path / "report" / "continuations.md").exists()
    assert 'id="continuations"' not in (tmp_path / "report" / "index.html").read_text("utf-8")
