"""The paper's own numbers: complete, and with a footnote where they contradict each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nsvd_exp.report.model import paper
from nsvd_exp.report.model.paper import Row


@pytest.mark.parametrize(
    ("number", "rows"), [(1, {"llama-7b": 31}), (3, {"llama-7b": 6}), (4, {"llama-7b": 4}),
                         (5, {"vicuna-7b": 3, "mistral-7b": 3, "opt-6.7b": 3}),
                         (6, {"llama-7b": 3, "llama-13b": 3, "llama-30b": 3})],
)  # fmt: skip
def test_the_papers_tables_have_their_rows(number: int, rows: dict[str, int]) -> None:
    table = paper.tables()[number]
    assert {model: len(found) for model, found in table.rows.items()} == rows
    assert len(table.printed) == 8 * sum(rows.values())


def test_the_papers_averages_follow_from_its_perplexities() -> None:
    checked = 0
    for table in paper.tables().values():
        for (model, row), printed in table.averages.items():
            recomputed = table.average(model, row)
            assert recomputed is not None
            is_misprint = (table.number, row.method, row.k1) == (3, "nsvd_i", 0.99)
            if printed is not None:
                assert (abs(abs(100 * recomputed) - printed) < 0.11) != is_misprint
                checked += 1
    assert checked == 22


@pytest.mark.parametrize(
    ("number", "model", "row", "dataset", "said"),
    [
        (3, "llama-7b", Row("nsvd_i", 0.3, 0.99), "alpaca_eval_jp", "32.7%, recomputed 29.3% bett"),
        (3, "llama-7b", Row("nsvd_i", 0.3, 0.99), "average", "9.3%, recomputed 8.8%"),
        (4, "llama-7b", Row("nid_i", 0.3, 0.99), "cmrc_cn", "24.9%, recomputed 23.9% worse"),
        (4, "llama-7b", Row("nid_i", 0.3, 0.99), "alpaca_eval", "1.2%, recomputed 1.4% better"),
        (4, "llama-7b", Row("nid_i", 0.3, 0.99), "average", "lost .* recomputed 4.6% worse"),
        (4, "llama-7b", Row("nid_i", 0.3, 0.9), "average", "lost .* recomputed 5.4% worse"),
        (5, "vicuna-7b", Row("nsvd_i", 0.3, 0.95), "ptb", "51.9%, recomputed 54.5% .*ASVD-0"),
        (5, "mistral-7b", Row("nsvd_i", 0.3, 0.95), "alpaca_eval_jp", "1.2%, recomputed 1.1% wor"),
        (1, "llama-7b", Row("nsvd_i", 0.3, 0.95), "alpaca_eval_jp", "367.69 here, 367.79 in Tab"),
    ],
)
def test_misprints_have_a_footnote_where_they_stand(
    number: int, model: str, row: Row, dataset: str, said: str
) -> None:
    assert re.search(said, paper.tables()[number].footnotes[model, row, dataset])


def test_what_the_paper_printed_right_has_no_footnote() -> None:
    notes = [note for table in paper.tables().values() for note in table.footnotes]
    printed = sum(len(table.printed) for table in paper.tables().values())
    assert printed == 472
    assert len(notes) < 20


def test_the_presets_are_the_papers_tables() -> None:
    """What `experiment=tableN` runs is what Table N shows."""
    for number, table in paper.tables().items():
        written = Path(__file__).parent.parent / "conf" / "experiment" / f"table{number}.yaml"
        text = written.read_text(encoding="utf-8")
        for method, k1 in table.variants:
            assert method in text
            assert k1 is None or f"{k1:g}" in text


def test_two_tables_vary_k1() -> None:
    varied = {number: table.varied for number, table in paper.tables().items() if table.varied}
    assert varied == {3: {"nsvd_i"}, 4: {"nid_i"}}


def test_the_papers_average_is_taken_over_the_sets_that_are_asked_for() -> None:
    table, row = paper.tables()[1], Row("nsvd_i", 0.3, 0.95)
    ours, reference = (table.perplexities("llama-7b", r) for r in (row, Row("asvd_i", 0.3, None)))
    by_hand = sum(1 - ours[n] / reference[n] for n in ("ptb", "c4")) / 2
    assert table.average("llama-7b", row, ["ptb", "c4"]) == pytest.approx(by_hand)
    assert table.average("llama-7b", row, ["ptb", "mine"]) is None
    assert table.average("llama-7b", row, []) is None
