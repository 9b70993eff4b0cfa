"""Every preset of the paper, run on the bundled model: little text, but every job of every grid."""

from __future__ import annotations

import re
from pathlib import Path

from helpers.command_line import Capture, run_done

from nsvd_exp.storage.results import read_all, read_similarities

# In this order, with one results_dir: jobs that are done, and that an earlier preset did.
EXPECTED = {
    "figure1": "1 done",
    "table2": "1 skipped",
    "table1": "31 done, 4 skipped",
    "table3": "4 done, 6 skipped",
    "table4": "3 done, 3 skipped",
    "table5": "3 skipped",
    "table6": "3 skipped",
}


def test_every_table_and_the_figure_run_on_the_bundled_model(
    tmp_path: Path, capsys: Capture
) -> None:
    reduced = ["model=tiny", "dataset=[ptb]", "evaluation.max_windows=1", "calibration.samples=2"]
    reduced += ["report=false", f"results_dir={tmp_path}"]
    for preset, tally in EXPECTED.items():
        out = run_done(capsys, f"experiment={preset}", *reduced)
        assert re.findall(r"\((.*)\)", out.splitlines()[0]) == [tally], preset
    cells = list(read_all(tmp_path))
    assert len(cells) == 31 + 4 + 3
    assert {(cell["status"], cell["model"], cell["dtype"]) for cell in cells} == {
        ("done", "tiny", "float32")
    }
    assert [record["status"] for record in read_similarities(tmp_path)] == ["done"]
