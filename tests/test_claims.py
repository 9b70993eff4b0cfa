"""The paper's claims: each verdict of each, the numbers behind them, and the page that says so."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest
from helpers.command_line import REPOSITORY
from helpers.report_store import (
    EIGHT,
    group_of,
    line_of,
    make_cell,
    make_full_store,
    make_similarity,
    scaled,
)

from nsvd_exp.report.claims import claims_text, main
from nsvd_exp.report.model import paper
from nsvd_exp.report.model.by_k1 import average_by_k1, near_and_far, sets_by_k1, steps
from nsvd_exp.report.model.checked import Checked, checked_in
from nsvd_exp.report.model.claims import CLAIMS
from nsvd_exp.report.model.evidence import Finding, Outcome
from nsvd_exp.report.model.headline import beside_papers
from nsvd_exp.report.model.paper import DENSE, Row
from nsvd_exp.report.model.subjects import Subject, papers_subject

HOLDS, FAILS, OPEN, UNMEASURED = Outcome
OWN = "wikitext2"
OTHERS = [name for name in EIGHT if name != OWN]
ASVD, NSVD = Row("asvd_i", 0.3, None), Row("nsvd_i", 0.3, 0.95)
SVD, ZERO, TWO = (Row(name, 0.3, None) for name in ("svd", "asvd_0", "asvd_ii"))
Cells = Mapping[Row, Mapping[str, float]]


def split(own: float, others: float) -> dict[str, float]:
    """EIGHT times a factor on the calibration's own set, and times another on the others."""
    return {name: value * (own if name == OWN else others) for name, value in EIGHT.items()}


def nsvd(k1: float) -> Row:
    return Row("nsvd_i", 0.3, k1)


def nid(k1: float) -> Row:
    return Row("nid_i", 0.3, k1)


def store(folder: Path, cells: Cells, windows: int = 20) -> Path:
    """Cells of these perplexities; the dense model's are a fifth of EIGHT."""
    for row, datasets in {DENSE: scaled(0.2), **cells}.items():
        ratio = row.ratio or 0.3
        make_cell(
            folder, method=row.method, ratio=ratio, k1=row.k1, datasets=datasets, windows=windows
        )
    return folder


def checked(folder: Path) -> Checked:
    """The only model of a store."""
    (one,) = checked_in([str(folder)])
    return one


def finding(subject: Subject, number: str) -> Finding:
    """What is found of a claim at the only ratio."""
    (claim,) = [claim for claim in CLAIMS if claim.number == number]
    (found,) = claim.findings(subject)
    return found


def between(zero: float, middle: float, best: float, own: bool) -> dict[Row, dict[str, float]]:
    """SVD, ASVD-0 and ASVD-I at these factors on the one text, and at others on the other."""
    factors = {SVD: zero, ZERO: middle, ASVD: best}
    return {row: split(f, 1.0) if own else split(1.0, f) for row, f in factors.items()}


# Two cells of one store differ by noise: their paired interval is about 3% wide to either side.
CASES: list[tuple[str, Cells, Outcome]] = [
    ("1a", {ASVD: EIGHT, NSVD: scaled(0.8)}, HOLDS),
    ("1a", {ASVD: EIGHT, NSVD: split(0.5, 1.2)}, FAILS),
    ("1a", {ASVD: EIGHT, NSVD: split(0.5, 1.0)}, OPEN),
    ("1a", {ASVD: EIGHT}, UNMEASURED),
    ("1b", {ASVD: EIGHT, NSVD: split(1.2, 0.8)}, HOLDS),
    ("1b", {ASVD: EIGHT, NSVD: scaled(0.8, ptb=1.2 * EIGHT["ptb"])}, FAILS),
    ("1b", {ASVD: EIGHT, NSVD: scaled(0.8, ptb=EIGHT["ptb"])}, OPEN),
    ("1b", {ASVD: EIGHT, NSVD: {"ptb": 1.0}}, UNMEASURED),
    ("2", {ASVD: EIGHT, NSVD: split(1.02, 2.0)}, HOLDS),
    ("2", {ASVD: EIGHT, NSVD: split(0.5, 2.0)}, HOLDS),
    ("2", {ASVD: EIGHT, NSVD: split(1.2, 0.5)}, FAILS),
    ("2", {ASVD: EIGHT, NSVD: split(1.08, 0.5)}, OPEN),
    ("2", {ASVD: EIGHT, NSVD: {"ptb": 1.0}}, UNMEASURED),
    ("3", {ASVD: EIGHT, TWO: scaled(1.05)}, FAILS),
    ("3", {ASVD: EIGHT, TWO: scaled(1.0, c4=0.9 * EIGHT["c4"])}, FAILS),
    ("3", {ASVD: EIGHT, TWO: EIGHT}, OPEN),
    ("3", {ASVD: EIGHT}, UNMEASURED),
    ("4", {ASVD: EIGHT, nsvd(0.99): EIGHT, nsvd(0.8): split(1.0, 0.7)}, HOLDS),
    ("4", {ASVD: EIGHT, nsvd(0.99): EIGHT, nsvd(0.8): split(0.7, 1.0)}, FAILS),
    ("4", {ASVD: EIGHT, nsvd(0.99): EIGHT, nsvd(0.8): split(0.7, 0.7)}, OPEN),
    ("4", {ASVD: EIGHT, nsvd(0.99): EIGHT}, UNMEASURED),
    ("5a", {ASVD: EIGHT, nid(0.95): scaled(0.8), NSVD: scaled(0.6)}, HOLDS),
    ("5a", {ASVD: EIGHT, nid(0.95): scaled(1.2), NSVD: scaled(0.6)}, FAILS),
    ("5a", {ASVD: EIGHT, nid(0.95): scaled(0.5), NSVD: scaled(0.6)}, FAILS),
    ("5a", {ASVD: EIGHT, nid(0.95): EIGHT, NSVD: scaled(0.6)}, OPEN),
    ("5a", {ASVD: EIGHT, nid(0.9): scaled(0.8), nsvd(0.9): scaled(0.6)}, UNMEASURED),
    ("5b", {ASVD: EIGHT, nid(0.9): scaled(0.8), nsvd(0.9): scaled(0.6)}, HOLDS),
    ("5b", {ASVD: EIGHT, nid(0.9): scaled(1.2), nsvd(0.9): scaled(0.6)}, FAILS),
    ("5b", {ASVD: EIGHT, nid(0.9): scaled(0.8), nsvd(0.9): scaled(0.8)}, OPEN),
    ("5b", {ASVD: EIGHT, nid(0.95): scaled(0.8), NSVD: scaled(0.6)}, UNMEASURED),
    ("6a", {SVD: split(4.0, 0.2), ASVD: EIGHT, NSVD: EIGHT}, HOLDS),
    ("6a", {SVD: split(1.0, 9.0), ASVD: EIGHT, NSVD: EIGHT}, FAILS),
    ("6a", {SVD: scaled(4.0), ASVD: EIGHT, NSVD: split(3.0, 1.0)}, FAILS),
    ("6a", {SVD: split(2.0, 9.0), ASVD: EIGHT, NSVD: EIGHT}, OPEN),
    ("6a", {SVD: scaled(4.0), ASVD: EIGHT}, UNMEASURED),
    ("6b", {SVD: split(0.2, 4.0), ASVD: EIGHT, NSVD: EIGHT}, HOLDS),
    ("6b", {SVD: split(9.0, 4.0), ASVD: split(1.0, 3.0), NSVD: EIGHT}, FAILS),
    ("6b", {SVD: split(9.0, 2.0), ASVD: EIGHT, NSVD: EIGHT}, OPEN),
    ("6b", {ASVD: EIGHT, NSVD: EIGHT}, UNMEASURED),
    ("6c", between(4.0, 2.0, 1.0, own=True), HOLDS),
    ("6c", between(2.0, 4.0, 1.0, own=True), FAILS),
    ("6c", between(4.0, 1.0, 1.0, own=True), OPEN),
    ("6c", {SVD: scaled(4.0), ASVD: EIGHT}, UNMEASURED),
    ("6d", between(4.0, 2.0, 1.0, own=False), HOLDS),
    ("6d", between(4.0, 1.0, 2.0, own=False), FAILS),
    ("6d", between(2.0, 2.0, 1.0, own=False), OPEN),
    ("6d", {ZERO: EIGHT, ASVD: EIGHT}, UNMEASURED),
]


@pytest.mark.parametrize(("number", "cells", "verdict"), CASES)
def test_each_claim_has_each_verdict(
    tmp_path: Path, number: str, cells: Cells, verdict: Outcome
) -> None:
    found = finding(checked(store(tmp_path, cells)).subject, number)
    assert (found.verdict, found.in_nats) == (verdict, verdict)


def test_equal_methods_are_told_to_be_equal_where_windows_are_many(tmp_path: Path) -> None:
    cells = {ASVD: EIGHT, TWO: scaled(1.001)}
    assert finding(checked(store(tmp_path, cells, 2000)).subject, "3").verdict is HOLDS


def test_the_cases_are_all_verdicts_of_all_claims() -> None:
    found = {(number, verdict) for number, _, verdict in CASES} | {("3", HOLDS)}
    assert found == {(claim.number, outcome) for claim in CLAIMS for outcome in Outcome}


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_too_few_windows_cannot_tell(tmp_path: Path, factor: float) -> None:
    cells = {SVD: scaled(9.0), ZERO: scaled(4.0), ASVD: EIGHT, TWO: EIGHT, NSVD: scaled(factor)}
    subject = checked(store(tmp_path, cells, windows=4)).subject
    for number in ("1a", "1b", "2", "3", "6a", "6b", "6c", "6d"):
        assert finding(subject, number).verdict is OPEN


# The numbers


def test_the_improvement_is_that_of_the_report_and_the_nats_are_the_mean(tmp_path: Path) -> None:
    folder = store(tmp_path, {ASVD: EIGHT, NSVD: scaled(0.8, ptb=40.0, c4=10.0)})
    line = line_of(group_of(folder), "nsvd_i", k1=0.95)
    subject = checked(folder).subject
    (average,) = finding(subject, "1a").evidence
    assert average.compared is not None
    assert average.compared.improvement.value == pytest.approx(line.average.improvement, rel=1e-12)
    assert average.compared.improvement.bounds == pytest.approx(line.average.improvement_interval)
    logs = [math.log(f) for f in (*[0.8] * 5, 40.0 / EIGHT["ptb"], 10.0 / EIGHT["c4"])]
    assert average.compared.nats.value == pytest.approx(sum(logs) / 7, rel=1e-9)
    assert average.times == pytest.approx((5.0, 5.0 * math.exp(sum(logs) / 7)))
    for one, name in zip(finding(subject, "1b").evidence, OTHERS, strict=True):
        over = line.entries[name].over_reference
        assert one.compared is not None
        assert over is not None
        assert one.compared.improvement.value == over.improvement
        assert one.compared.improvement.bounds == over.improvement_interval


def test_the_gain_far_from_the_calibration_is_a_difference_of_means(tmp_path: Path) -> None:
    cells = {ASVD: EIGHT, nsvd(0.99): EIGHT, nsvd(0.8): split(0.9, 0.6)}
    (gain,) = finding(checked(store(tmp_path, cells)).subject, "4").evidence
    assert gain.compared is not None
    assert gain.compared.improvement.value == pytest.approx(0.4 - 0.1)
    assert gain.compared.nats.value == pytest.approx(math.log(0.6) - math.log(0.9))


def test_near_and_far_are_halves_by_similarity_where_every_set_has_one(tmp_path: Path) -> None:
    subject = checked(store(tmp_path, {ASVD: EIGHT, NSVD: EIGHT})).subject
    assert near_and_far(subject) == ([OWN], OTHERS)
    for place, name in enumerate(EIGHT):
        make_similarity(tmp_path, "tiny", name, {"mean": [0.9 - place / 10, 0.9 - place / 10]})
        near, far = near_and_far(checked(tmp_path).subject)
        assert len(near) == (4 if place == 7 else 1)
    assert (near, far) == (list(EIGHT)[:4], list(EIGHT)[4:])


def test_each_set_has_its_best_k1_and_what_cannot_be_told_from_it(tmp_path: Path) -> None:
    cells = {
        ASVD: EIGHT,
        nsvd(0.99): scaled(0.9, ptb=0.5 * EIGHT["ptb"]),
        nsvd(0.9): scaled(0.8),
        nsvd(0.8): scaled(0.6, c4=0.8 * EIGHT["c4"]),
    }
    subject = checked(store(tmp_path, cells)).subject
    best = {line.title: line.best for line in sets_by_k1(subject, 0.3)}
    assert best.pop("PTB") == [0.99]
    assert best.pop("C4") == [0.9, 0.8]
    assert all(k1s == [0.8] for k1s in best.values())
    assert average_by_k1(subject, 0.3).best == [0.8]
    assert [one.verdict for one in steps(subject, 0.3)] == [HOLDS, HOLDS]


def test_ruined_are_comparisons_of_which_both_models_are(tmp_path: Path) -> None:
    cells = {ASVD: scaled(4.0), NSVD: scaled(3.0), TWO: scaled(1.0)}  # x20, x15, x5
    subject = checked(store(tmp_path, cells)).subject
    assert finding(subject, "1a").is_ruined
    assert not finding(subject, "3").is_ruined
    text = claims_text([str(tmp_path)])
    assert "**holds** *(ruined)* at 30%" in row_of(text, "1a")
    assert "ruined" not in row_of(text, "3").split("|")[3]


def test_the_best_is_compared_with_the_best_of_the_papers(tmp_path: Path) -> None:
    store(tmp_path, {ASVD: EIGHT, NSVD: scaled(0.8)})
    pivoted = {"storage": {"class": "Pivoted", "version": 1}}
    make_cell(tmp_path, method="asvd_i", datasets=scaled(0.4), form=pivoted)
    one = checked(tmp_path)
    (found,) = beside_papers(one.group, one.subject)
    assert found.papers is not None
    assert found.compared is not None
    assert (found.best.winner.row.method, found.papers.winner.row) == ("asvd_i, pivoted", NSVD)
    assert found.compared.improvement.value == pytest.approx(0.5)


def test_the_papers_own_numbers_give_what_it_prints() -> None:
    papers = papers_subject()
    found = {claim.number: claim.findings(papers) for claim in CLAIMS}
    printed = {0.3: 0.147, 0.4: 0.183, 0.5: 0.135}
    for one in found["1a"]:
        (evidence,) = one.evidence
        assert evidence.compared is not None
        value = evidence.compared.improvement.value
        if one.ratio in printed:
            assert value == pytest.approx(printed[one.ratio], abs=5e-4)
    costs = [
        -evidence.compared.improvement.value
        for one in found["2"]
        for evidence in one.evidence
        if evidence.compared is not None
    ]
    assert f"{min(costs):.1%} to {max(costs):.1%}" == "0.1% to 7.2%"
    assert "0.1% to 7.2%" in next(claim.rule for claim in CLAIMS if claim.number == "2")
    # Its NID-I is worse than ASVD-I on average at k1 = 0.99 and 0.9, and better at 0.95.
    at_30 = {number: of[2].verdict for number, of in found.items()}
    assert (at_30["5a"], at_30["5b"]) == (HOLDS, FAILS)
    assert {row.method for row in papers.rows} - {"dense"} <= set(paper.METHODS)


# The page


def row_of(text: str, number: str) -> str:
    """The row of a claim in the table at the top."""
    return next(line for line in text.splitlines() if line.startswith(f"| {number} |"))


def test_what_is_not_stored_is_not_measured(tmp_path: Path) -> None:
    text = claims_text([str(store(tmp_path, {ASVD: EIGHT}))])
    for claim in CLAIMS:
        assert row_of(text, claim.number).split("|")[3].strip() == "not measured"
    make_cell(tmp_path, method="nsvd_i", ratio=0.5, datasets=EIGHT)
    make_cell(tmp_path, method="asvd_i", ratio=0.5, datasets=scaled(2.0))
    text = claims_text([str(tmp_path)])
    assert "**holds** at 50%; not measured at 30%" in row_of(text, "1a")
    assert "No two methods are stored" not in text


def test_the_verdict_says_where_log_perplexity_disagrees(tmp_path: Path) -> None:
    """One set many times worse outweighs the others in a mean of percentages."""
    cells = {ASVD: EIGHT, NSVD: scaled(0.7, ptb=6 * EIGHT["ptb"])}
    text = claims_text([str(store(tmp_path, cells))])
    assert "**does not hold** (in nats: holds) at 30%" in row_of(text, "1a")


def test_two_stores_of_one_model_are_told_apart_and_what_was_run_is_said(tmp_path: Path) -> None:
    for name in ("one", "two"):
        store(tmp_path / name, {ASVD: EIGHT, NSVD: scaled(0.8)})
    folders = [str(tmp_path / name) for name in ("one", "two")]
    text = claims_text(folders)
    assert all(f"| tiny, {folder} |" in text.replace("\\", "") for folder in folders)
    run = next(line for line in text.splitlines() if line.startswith("| tiny, "))
    assert "20 x 256" in run
    assert "64 x 256 of WikiText-2, seed 3" in run
    assert "float32" in run


def test_the_command_writes_the_page_or_says_why_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = store(tmp_path / "results", {ASVD: EIGHT, NSVD: EIGHT}), tmp_path / "claims.md"
    assert main([str(folder), "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8") == claims_text([str(folder)], str(out))
    assert main([str(folder)]) == 0
    assert "## The claims" in capsys.readouterr().out
    assert main([str(tmp_path / "none")]) == 2
    assert "there is no" in capsys.readouterr().err
    make_similarity(tmp_path / "alike")
    assert main([str(tmp_path / "alike")]) == 2
    assert "holds no perplexities" in capsys.readouterr().err


def test_a_store_with_everything_in_it_makes_a_page(tmp_path: Path) -> None:
    """Several models and seeds, another setting, an awkward title, failed and damaged cells."""
    text = claims_text([str(make_full_store(tmp_path / "results"))])
    assert "llama-7b, as printed" in text
    assert "tiny: results under 1 other setting are stored too, and not used here." in text
    assert "seed 3; 64 x 256 of WikiText-2, seed 4" in text
    rows = [line for line in text.splitlines() if re.match(r"\| \d[a-d]? \|", line)]
    assert {re.sub(r"\\.", "", row).count("|") for row in rows} == {7}


def test_the_published_page_is_that_of_the_published_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the command that the page itself names."""
    monkeypatch.chdir(REPOSITORY)
    published = (REPOSITORY / "docs" / "claims.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"```bash\n(.*)\n```", published)
    *start, option, out = shlex.split(command)
    assert start[:3] == ["python", "-m", "nsvd_exp.report.claims"]
    assert (option, out) == ("--out", "docs/claims.md")
    assert {"results/tiny", "results/real9m"} <= set(start[3:])
    assert claims_text(start[3:], out) == published
