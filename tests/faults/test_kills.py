"""Processes that are killed, stopped or told to end: what was stored stays, the rest is made."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.faults import STAGES, Fault, Ran, Running, ran, stored_in, temporaries_under

pytestmark = pytest.mark.slow

Settings = Callable[..., list[str]]
Record = Callable[[str, Any], None]
LONGER = ["calibration.samples=48", "evaluation.max_windows=60", "calibration.batch=2"]
METHODS = ("svd", "asvd_0", "asvd_i", "asvd_ii", "nsvd_i", "nsvd_ii")


@pytest.fixture
def arguments(settings: Settings) -> list[str]:
    return [*settings(), *LONGER, "cache.keep=bases", "dataset=[ptb,c4]", "method=nsvd_i"]


def elsewhere(arguments: Sequence[str], folder: Path) -> list[str]:
    return [*arguments, f"results_dir={folder}"]


def assert_nothing_is_lost(
    cells: Sequence[Sequence[str]], folder: Path, expected: Ran, before: dict[Any, Any]
) -> None:
    """What was stored is there, and the next run makes the rest, to the same numbers."""
    assert before.items() <= stored_in(folder).items()
    again = ran(cells)
    assert again.is_done, again.outcomes
    assert stored_in(folder) == expected.losses
    if again.measured == 0:  # it had nothing to do, and did not look into the cache
        assert ran([[*cells[0], "ratio=0.6"]]).is_done
    assert temporaries_under(folder) == []


def random_moment(running: Running, stage: str, clean: Ran, generator: random.Random) -> None:
    """Wait until a stage, and then for no longer than it takes."""
    running.until(stage)
    begun = next(at for name, at in clean.stages if name == stage)
    later = [at for name, at in clean.stages if name != stage and at > begun]
    time.sleep(generator.random() * (min(later, default=begun + 0.05) - begun))


@pytest.mark.parametrize("memory", ["resident", "streamed"])
def test_kills_at_random_moments_in_every_stage(
    memory: str, arguments: list[str], tmp_path: Path, record_property: Record
) -> None:
    arguments = [*arguments, f"memory={memory}"]
    clean, generator = ran([elsewhere(arguments, tmp_path / "clean")]), random.Random(0)
    assert clean.is_done, clean.outcomes
    assert {stage for stage, _ in clean.stages} == set(STAGES)
    hit: Counter[str | None] = Counter()
    for trial in range(40):
        folder = tmp_path / str(trial)
        cells = [elsewhere(arguments, folder)]
        running = Running(cells)
        random_moment(running, STAGES[trial % len(STAGES)], clean, generator)
        hit[running.end(signal.SIGKILL).last_stage] += 1
        assert_nothing_is_lost(cells, folder, clean, {})
        shutil.rmtree(folder)
    record_property("kills", dict(hit))
    assert all(hit[stage] >= 5 for stage in STAGES), hit


@pytest.mark.parametrize("memory", ["resident", "streamed"])
def test_kills_at_file_operations_while_a_cell_is_added_to(
    memory: str, arguments: list[str], tmp_path: Path, record_property: Record
) -> None:
    """Before each is opened, renamed, removed, locked: half of them, drawn at random."""
    arguments = [*arguments, f"memory={memory}"]
    prepared, folder = tmp_path / "prepared", tmp_path / "store"
    narrow = ran([[*elsewhere(arguments, prepared), "dataset=[ptb]"]])
    shutil.rmtree(prepared / "cache")
    shutil.copytree(prepared, folder)
    cells = [elsewhere(arguments, folder)]
    clean = ran(cells, Fault(str(folder)))
    assert clean.is_done, clean.outcomes
    moments = random.Random(1).sample(range(1, clean.operations + 1), 30)
    died = 0
    for moment in moments:
        shutil.rmtree(folder)
        shutil.copytree(prepared, folder)
        died += ran(cells, Fault(str(folder), dies_at=moment)).outcomes == []
        assert_nothing_is_lost(cells, folder, clean, narrow.losses)
    record_property("operations", clean.operations)
    record_property("kills", died)
    assert died >= 0.9 * len(moments)


def test_eight_processes_on_one_grid_do_each_thing_once(
    arguments: list[str], tmp_path: Path, record_property: Record
) -> None:
    def cells(folder: Path) -> list[list[str]]:
        return [[*elsewhere(arguments, folder), f"method={method}"] for method in METHODS]

    expected, generator = ran(cells(tmp_path / "alone")), random.Random(2)
    grid = cells(tmp_path / "store")
    running = [Running(generator.sample(grid, len(grid))) for _ in range(8)]
    all_ran = [one.end() for one in running]
    assert all(one.is_done for one in all_ran), [one.outcomes for one in all_ran]
    assert sum(one.measured for one in all_ran) == 2 * len(METHODS)
    calibrated = [one for one in all_ran if "calibrate" in dict(one.stages)]
    assert len(calibrated) == 1
    assert stored_in(tmp_path / "store") == expected.losses
    assert temporaries_under(tmp_path / "store") == []
    record_property("jobs", 8 * len(grid))


def test_eight_processes_of_which_five_are_killed(
    arguments: list[str], tmp_path: Path, record_property: Record
) -> None:
    def cells(folder: Path) -> list[list[str]]:
        return [[*elsewhere(arguments, folder), f"method={method}"] for method in METHODS]

    expected, generator = ran(cells(tmp_path / "alone")), random.Random(3)
    for trial in range(6):
        folder = tmp_path / str(trial)
        running = [Running(generator.sample(cells(folder), len(METHODS))) for _ in range(8)]
        killed: set[int] = set()
        for one in generator.sample(range(8), 5):
            time.sleep(generator.random() * 0.3)
            running[one].end(signal.SIGKILL)
            killed.add(one)
        for one in set(range(8)) - killed:
            assert running[one].end().is_done
        assert_nothing_is_lost(cells(folder), folder, expected, expected.losses)
    record_property("kills", 6 * 5)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGABRT"])
def test_signals_at_random_moments(
    name: str, arguments: list[str], tmp_path: Path, record_property: Record
) -> None:
    clean, generator = ran([elsewhere(arguments, tmp_path / "clean")]), random.Random(name)
    for trial in range(10):
        folder = tmp_path / str(trial)
        cells = [elsewhere(arguments, folder)]
        running = Running(cells)
        random_moment(running, STAGES[trial % len(STAGES)], clean, generator)
        running.end(getattr(signal, name))
        assert_nothing_is_lost(cells, folder, clean, {})
    record_property("signals", 10)


@pytest.mark.parametrize("stage", STAGES)
def test_a_process_that_is_stopped_is_waited_for_and_goes_on(
    stage: str, arguments: list[str], tmp_path: Path
) -> None:
    expected = ran([elsewhere(arguments, tmp_path / "clean")])
    cells = [elsewhere(arguments, tmp_path / "store")]
    stopped = Running(cells)
    stopped.until(stage)
    assert stopped.process.pid is not None
    signal_to = stopped.process.pid
    os.kill(signal_to, signal.SIGSTOP)
    before = temporaries_under(tmp_path / "store")
    waiting = Running(cells)
    time.sleep(0.5)
    assert waiting.process.is_alive()
    assert temporaries_under(tmp_path / "store") == before, "nothing of the living is removed"
    os.kill(signal_to, signal.SIGCONT)
    first, second = stopped.end(), waiting.end()
    assert (first.measured, second.measured) == (2, 0)
    assert first.losses == second.losses == expected.losses
