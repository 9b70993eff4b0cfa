"""What is shown in a terminal: tables that fit it, numbers that are never cut."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from helpers.command_line import Capture
from helpers.configuration import EIGHT, METHODS, compose
from rich.progress import Progress

from nsvd_exp.cli import terminal
from nsvd_exp.cli.fitting import Forms
from nsvd_exp.cli.outcome import Outcome
from nsvd_exp.experiment.wording import format_perplexity
from nsvd_exp.progress import ProgressBars
from nsvd_exp.storage.results import Result


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.000"),
        (5.6834, "5.683"),
        (22.874, "22.87"),
        (99.996, "100.0"),
        (139.56, "139.6"),
        (9999.4, "9999"),
        (9999.6, "1.00e4"),
        (12345.6, "1.23e4"),
        (9.87e7, "9.87e7"),
    ],
)
def test_a_perplexity_has_four_digits_and_one_form_above_ten_thousand(
    value: float, text: str
) -> None:
    assert format_perplexity(value) == text


def values_of(job: int) -> dict[str, str]:
    """A different number for each set, of every length that there is."""
    return {
        name: format_perplexity((1.0 + job + number / 10) * 10 ** ((job + number) % 6))
        for number, name in enumerate(EIGHT)
    }


def outcome(number: int, method: str, state: str = "done", *overrides: str) -> Outcome:
    compresses, _, is_nested = METHODS[method]
    label = ("tiny", method, "0.3" if compresses else "", "0.95" if is_nested else "")
    values = {} if state == "failed" else values_of(number)
    return Outcome(state, "perplexity", label, (f"method={method}", *overrides), values)


ONE = [outcome(0, "nsvd_i")]
THREE = [outcome(n, m, s) for n, (m, s) in enumerate(
    [("svd", "done"), ("asvd_i", "skipped"), ("nsvd_i", "failed")])]  # fmt: skip
ALL = [outcome(number, method) for number, method in enumerate(METHODS)]
SEEDS = [outcome(seed, "svd", "done", f"calibration.seed={seed}") for seed in range(4)]


def shown(
    forms: Forms, width: int | None, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """The lines that a terminal of so many characters shows; None: there is none."""
    if width is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", str(width))
    capsys.readouterr()
    terminal.show(forms)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [60, None, 80, 120, 200])
@pytest.mark.parametrize("outcomes", [ONE, THREE, ALL, SEEDS], ids=["1", "3", "all", "seeds"])
def test_a_grid_fits_the_terminal_and_each_number_stands_there_once(
    outcomes: list[Outcome], width: int | None, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown(terminal.grid_table(outcomes), width, capsys, monkeypatch)
    assert max(map(len, lines)) <= (width or 80)
    expected = Counter(text for o in outcomes for text in o.values.values())
    found = Counter(re.findall(r"(?<![\w.=])[\d.]+(?:e\d+)?(?![\w.=])", "\n".join(lines[1:])))
    assert {text: found[text] for text in expected} == expected
    words = " ".join(lines).split()
    assert {o.label[1] for o in outcomes} <= set(words)
    for setting in ("tiny", "0.3"):
        assert setting in re.sub(r"[,)]", " ", " ".join(lines)).split()


def test_what_differs_is_a_column_and_what_does_not_is_said_in_the_title(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    title, *lines = shown(terminal.grid_table(ALL), 110, capsys, monkeypatch)
    assert title == f"Perplexity, model tiny, ratio 0.3, k1 0.95 ({len(ALL)} done)"
    assert next(line for line in lines if "method" in line).split()[:2] == ["method", "wikitext2"]
    wide = shown(terminal.grid_table(ALL), 200, capsys, monkeypatch)
    header = next(line for line in wide if "method" in line)
    assert header.split()[:5] == ["state", "model", "method", "ratio", "k1"]


def test_one_cell_in_a_narrow_terminal_has_one_row_for_each_set(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown(terminal.grid_table(ONE), 60, capsys, monkeypatch)
    rows = [line.split() for line in lines if line.split()[:1] and line.split()[0] in EIGHT]
    assert rows == [[name, text] for name, text in ONE[0].values.items()]


def test_a_name_that_is_too_long_is_folded_and_no_number_is_cut(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = [
        Outcome("done", "perplexity", ("[/x]" * 100 + str(n), "svd", "0.3", ""), (), values_of(n))
        for n in range(2)
    ]
    lines = shown(terminal.grid_table(named), 60, capsys, monkeypatch)
    assert max(map(len, lines)) <= 60
    for text in (text for o in named for text in o.values.values()):
        assert re.search(rf"(?<!\S){re.escape(text)}(?!\S)", "\n".join(lines)), text
    assert "[/x]" in lines[-3]


def test_a_cell_and_its_similarities_fit_by_leaving_details_out(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose()
    measured: dict[str, Result] = {
        name: {"perplexity": 12345.6, "windows": 128, "length": 2048} for name in EIGHT
    }
    dense: dict[str, Result] = {name: {"perplexity": 5.6834} for name in EIGHT}
    record = {
        "dataset": {"title": "AlpacaEval (JP)", "windows": 128, "length": 2048},
        "layers": [{"mean": 0.5, "abs_mean": 0.25, "gram": 0.125}],
        "calibration": {"title": "256 x 2048 tokens of wikitext2 train"},
    }
    cell = terminal.cell_table(config, measured, dense)
    similarity = terminal.similarity_table(config, [record])
    for width in (40, 60, 80, 120):
        lines = shown(cell, width, capsys, monkeypatch)
        assert max(map(len, lines)) <= width
        rows = [line.split() for line in lines if "5.683" in line]
        assert [row[row.index("5.683") + 1 :][:2] for row in rows] == [["1.23e4", "2172"]] * 8
        assert ("128 x 2048" in "\n".join(lines)) == (width > 40)
        lines = shown(similarity, width, capsys, monkeypatch)
        assert max(map(len, lines)) <= width
        assert "0.500 ± 0.000" in "\n".join(lines)
    assert "0.125 ± 0.000" in "\n".join(lines)


def test_progress_that_goes_to_a_pipe_names_its_cell(caplog: pytest.LogCaptureFixture) -> None:
    """Twice a minute, with what is left of the grid where that is known."""
    now, said = 0.0, "about 12 min left"
    bars = ProgressBars(
        Progress(disable=True), "cell 3 of 6, tiny svd 0.3", lambda: said, lambda: now
    )
    update = bars.progress("ptb")
    with caplog.at_level("INFO"):
        for now in (0.0, 20.0, 31.0, 40.0):
            update(int(now), 100)
        said = ""
        now = 62.0
        update(62, 100)
    assert caplog.messages == [
        "cell 3 of 6, tiny svd 0.3: ptb, 31 of 100, about 12 min left",
        "cell 3 of 6, tiny svd 0.3: ptb, 62 of 100",
    ]


def test_a_bar_in_a_narrow_terminal_cuts_no_number(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a terminal has
    for width in (60, 80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        title = "cell 13 of 200, a-model-of-7b nsvd_i 0.3 0.95"
        with ProgressBars.showing(title, lambda: "about 12 min left") as bars:
            bars.progress("wikitext2")(12345, 67890)
        shown = capsys.readouterr().err
        for part in ("12345/67890", "about 12 min left", "nsvd_i"):
            assert part in shown, width
