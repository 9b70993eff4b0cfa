"""Grids: how their jobs are composed, and how processes that do one together share it out."""

from __future__ import annotations

import contextlib
import itertools
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from helpers.command_line import (
    Capture,
    Settings,
    cells_of,
    command,
    run_done,
    run_process,
    wait_until,
)
from helpers.configuration import compose
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from nsvd_exp.cli.compose import Composer, Job
from nsvd_exp.cli.jobs import Jobs
from nsvd_exp.cli.launchers.task import Task
from nsvd_exp.cli.making import BusyError, Maker
from nsvd_exp.cli.sweep import GridSweeper
from nsvd_exp.cli.turns import Turn, Turns, is_stored, lock_files
from nsvd_exp.config.files import conf_dir, register
from nsvd_exp.experiment.order import next_job, sharing_group
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.progress import Pace, about
from nsvd_exp.storage.files import hold, take


@pytest.fixture
def loader() -> ConfigLoaderImpl:
    """What Hydra composes `conf/` with."""
    register()
    setup_globals()
    version.setbase("1.3")
    return ConfigLoaderImpl(create_config_search_path(str(conf_dir())))


def composer(loader: ConfigLoaderImpl, *hydra: str) -> tuple[Composer, DictConfig]:
    """What composes the jobs of a grid, and the configuration of the grid itself."""
    master = loader.load_configuration("config", list(hydra), RunMode.MULTIRUN)
    return Composer(loader, master), master


def test_several_grids_are_gone_through_one_after_the_other_and_each_job_once(
    loader: ConfigLoaderImpl,
) -> None:
    grids = [{"method": "svd,asvd_i"}, {"method": "asvd_ridge", "method.ridge": 0.3}]
    sweeper = GridSweeper(None, DictConfig({"ratio": "0.1,0.2"}), [DictConfig(g) for g in grids])
    ridge = ("method=asvd_ridge", "method.ridge=0.3")
    at = {ratio: f"ratio={ratio}" for ratio in (0.1, 0.2)}
    plain = [(at[ratio], f"method={name}") for ratio in at for name in ("svd", "asvd_i")]
    assert sweeper.jobs([], loader) == [*plain, *((at[ratio], *ridge) for ratio in at)]
    assert sweeper.jobs(["ratio=0.2", "k1=0.5"], loader) == [
        (at[0.2], "method=svd", "k1=0.5"), (at[0.2], "method=asvd_i", "k1=0.5"),
        (at[0.2], *ridge, "k1=0.5"),
    ]  # fmt: skip
    typed = ["method=svd", "method.ridge=0.3", "ratio=0.2"]
    assert sweeper.jobs(typed, loader) == [(at[0.2], "method=svd", "method.ridge=0.3")]


MIXED_GRID: list[Job] = [
    *itertools.product(
        ("method=dense", "method=asvd_0", "method=nsvd_i"), ("ratio=0.2", "ratio=0.3"), ("k1=0.5",)
    ),
    ("ratio=0.3", "model=llama_7b", "dtype=float16", "evaluation.dtype=float32"),
    ("model=hf", "model.name=some/thing", 'model.title="a b"', "model.skip=[a,b]"),
    ("experiment=table3", "method=nsvd_ii", "k1=0.8"),
    ("k1=0.8", "method=nsvd_ii", "experiment=table3"),
    ("dataset@calibration.dataset=c4", "calibration.seed=5", "calibration.length=null"),
    ("dataset=[ptb,c4]", "dataset.ptb.rows=3", "evaluation.max_windows=2"),
    ("data_dir='~/x y'", "tracking.dir=${results_dir}/w", "report=false"),
    ("method=asvd_0", "method.alpha=0.25"),
    ("method=asvd_0", "+method.mine=1"),
    ("+model.tokenizer.x=true", "++calibration.seed=7"),
    ("method=svd", "~method.plot", "ratio=0.4"),
    ("method.first={_target_: nsvd_exp.methods.ASVD, alpha: 2}", "ratio=0.4"),
    ("calibration={samples: 3}",),
    ("measure=similarity", "similarity.statistic=gram", "allocation=uniform"),
    (),
]


def test_jobs_are_composed_as_hydra_composes_them(loader: ConfigLoaderImpl) -> None:
    _, master = composer(loader, "hydra.sweeper.max_batch_size=3", "results_dir=/tmp/r")
    str(master.hydra.sweep.dir)  # resolves `${now:}`, which is to stay the same in all jobs
    ours = Composer(loader, master)
    by_hydra = {job: loader.load_sweep_config(master, list(job)) for job in MIXED_GRID}
    for job in [*MIXED_GRID, *reversed(MIXED_GRID)]:  # no job leaves anything to those after it
        found, expected = ours.compose(job), by_hydra[job]
        assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(expected), job
        assert OmegaConf.get_cache(found) == OmegaConf.get_cache(expected)
        assert str(found.hydra.sweep.dir) == str(expected.hydra.sweep.dir)
        for name in ("", "hydra", "model", "dataset"):
            nodes = [OmegaConf.select(c, name) if name else c for c in (found, expected)]
            for flag in (OmegaConf.is_struct, OmegaConf.is_readonly, OmegaConf.get_type):
                assert flag(nodes[0]) == flag(nodes[1]), (job, name)


@pytest.mark.parametrize(
    "job",
    [("rato=0.3",), ("ratio=much",), ("method=nsvd",), ("ratio=0.3", "ratio@x=0.4"), ("model=a",)],
)
def test_what_does_not_compose_is_hydras_own_error(loader: ConfigLoaderImpl, job: Job) -> None:
    ours, master = composer(loader)
    errors = []
    compose_them: Sequence[Callable[[], DictConfig]] = (
        lambda: ours.compose(job),
        lambda: loader.load_sweep_config(master, list(job)),
    )
    for do in compose_them:
        with pytest.raises(HydraException) as caught:
            do()
        errors.append((type(caught.value), str(caught.value), str(caught.value.__cause__)))
    assert errors[0] == errors[1]


def test_hydra_composes_each_choice_of_files_once(
    loader: ConfigLoaderImpl, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = composer(loader)
    composed: list[list[str]] = []
    real = ConfigLoaderImpl.load_sweep_config

    def counted(self: ConfigLoaderImpl, master: DictConfig, overrides: list[str]) -> DictConfig:
        composed.append(overrides)
        return real(self, master, overrides)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", counted)
    for method, ratio, k1 in itertools.product(("svd", "nid_i"), (0.1, 0.2), (0.5, 0.9)):
        ours.compose((f"method={method}", f"ratio={ratio}", f"k1={k1}"))
    assert composed == [["method=svd"], ["method=nid_i"]]


def shares(groups: str, processes: int) -> list[str]:
    """Which jobs each process gets, where all take as many turns: `abc` are of three groups."""
    left, held = list(range(len(groups))), set[int]()
    taken: list[list[int]] = [[] for _ in range(processes)]
    while left:
        for jobs in taken:
            held -= set(jobs[-1:])  # it has ended
            if not left:
                break
            own = groups[jobs[-1]] if jobs else None
            # The jobs of others are held; those that have ended are not left.
            there = [*left, *held]
            are_held = [job in held for job in there]
            index, is_held = next_job([groups[job] for job in there], are_held.__getitem__, own)
            assert not is_held
            job = there[index]
            left.remove(job)
            held.add(job)
            jobs.append(job)
    return ["".join(groups[job] for job in jobs) for jobs in taken]


def test_processes_go_to_different_groups_first_and_then_help_each_other() -> None:
    assert shares("aaabbb", 1) == ["aaabbb"]
    assert shares("aaabbb", 2) == ["aaa", "bbb"]
    assert shares("aaaabb", 2) == ["aaa", "bba"]
    assert [len(share) for share in shares("a" * 8, 8)] == [1] * 8
    assert [share[0] for share in shares("aabbccdd", 4)] == list("abcd")


def test_a_job_that_is_held_is_taken_when_nothing_else_is_left() -> None:
    assert next_job("aab", lambda index: index == 0) == (2, False)
    assert next_job("aab", lambda index: index in (0, 2)) == (1, False)
    assert next_job("aab", lambda index: True) == (0, True)
    assert next_job("aab", lambda index: False, own="b") == (2, False)


def test_cells_of_one_metric_are_a_group() -> None:
    jobs = ["asvd_i ratio=0.2", "nsvd_i ratio=0.3 k1=0.5", "asvd_0", "svd"]
    groups = [sharing_group(compose(*f"method={job}".split())) for job in jobs]
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3


def test_how_much_is_left_is_told_by_the_cells_that_were_done() -> None:
    now = 100.0
    pace = Pace(6, clock=lambda: now)
    pace.end(has_worked=False)
    assert pace.seconds_left() is None
    for _ in range(2):
        now += 60
        pace.end(has_worked=True)
    assert pace.seconds_left() == 60 * 3
    said = Turn(4, 6, seconds_left=pace.seconds_left()).countdown(clock=lambda: now)
    assert said() == "about 3 min left"
    now += 100
    assert said() == "about 80 s left"
    now += 100
    assert said() == ""  # longer than was expected: nothing is known
    pace = Pace(6, clock=lambda: now)
    pace.stored = 3  # take no time, whether they have ended or not
    now += 60
    pace.end(has_worked=True)
    assert pace.seconds_left() == 60 * 2
    pace.end(has_worked=False, was_stored=True)
    assert pace.seconds_left() == 60 * 2
    assert about(None) == ""
    assert about(3 * 3600 + 20 * 60) == "about 3 h 20 min left"


def test_a_cell_that_another_process_is_at_is_left_for_later(
    settings: Settings, capsys: Capture
) -> None:
    """The grid begins with the cells that are free, and waits for nobody before the end."""
    arguments = [*settings(), "dataset=[ptb]", "report=false"]
    grid = ["-m", *arguments, "method=svd", "ratio=0.2,0.3,0.4"]
    plan = plan_cell(compose(*arguments, "method=svd", "ratio=0.2"))
    (file,) = lock_files(plan.config)
    file.parent.mkdir(parents=True)
    lock = take(file)
    process = subprocess.Popen(
        command(*grid), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        said = ""
        while "waiting for another process" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        done = {cell["ratio"] for cell in cells_of(arguments)}
    finally:
        lock.release()
        out, _ = process.communicate(timeout=120)
    assert done == {0.3, 0.4}
    assert re.findall(r"^(cell \d of 3), llama-0 svd (0\.\d): started", said, re.MULTILINE) == [
        ("cell 1 of 3", "0.3"), ("cell 2 of 3", "0.4"), ("cell 3 of 3", "0.2"),
    ]  # fmt: skip
    assert "3 jobs: all are checked" in said.splitlines()[0]
    assert "3 done" in out
    assert "3 skipped" in run_done(capsys, *grid)


def test_a_job_that_only_waited_says_that_it_was_there(settings: Settings) -> None:
    config = compose(*settings(), "dataset=[ptb]", "method=svd")
    plan, result, was_done = Maker().cell(config)
    assert (was_done, plan.is_done(result)) == (False, True)
    text = plan.file.path.read_text()
    plan.file.path.unlink()  # as long as the other process is at it

    class Waits(Maker):
        """Another process ends while this one makes ready."""

        @property
        def session(self):  # type: ignore[no-untyped-def]
            plan.file.path.write_text(text)
            return super().session

    assert Waits().cell(config)[2] is True


SIMILARITIES = ["measure=similarity", "dataset=[ptb,c4]"]


def test_records_that_another_process_is_at_are_left_for_later(settings: Settings) -> None:
    configs = [compose(*settings(), *SIMILARITIES), compose(*settings(), "method=svd")]
    numbers = [OmegaConf.create({"hydra": {"job": {"num": number}}}) for number in range(2)]
    tasks = [
        Task(number, Jobs(), HydraContext(None, None), "", config)  # type: ignore[arg-type]
        for number, config in zip(numbers, configs, strict=True)
    ]
    files = lock_files(configs[0])
    assert len(files) == 2
    for file in files:
        file.parent.mkdir(parents=True)
        lock = take(file)
        try:
            turns = Turns(tasks, Pace(2))
            taken = [turns.take(), turns.take()]
            assert [(task.number, task.turn.waits) for task in taken if task.turn] == [
                (1, False), (0, True),
            ]  # fmt: skip
            with pytest.raises(BusyError, match=r"at (ptb|c4)-"):
                Maker().similarities(configs[0], Turn(1, 2, waits=False))
        finally:
            lock.release()
    assert not any(file.with_name("result.json").exists() for file in files)
    assert not is_stored(configs[0])
    _, records, was_done = Maker().similarities(configs[0], Turn(1, 2, waits=False))
    assert ([record["status"] for record in records], was_done) == (["done"] * 2, False)
    assert is_stored(configs[0])


def test_records_that_were_only_waited_for_were_there(settings: Settings) -> None:
    config = compose(*settings(), *SIMILARITIES)
    plan, *_ = Maker().similarities(config)
    texts = [file.path.read_text() for file in plan.files]
    for file in plan.files:
        file.path.unlink()  # as long as the other process is at them

    class Waits(Maker):
        """Another process ends while this one makes ready."""

        @property
        def session(self):  # type: ignore[no-untyped-def]
            for file, text in zip(plan.files, texts, strict=True):
                file.path.write_text(text)
            return super().session

    assert Waits().similarities(config)[2] is True


def is_at_the_calibration(log: Path) -> bool:
    """Whether the grid of this log, or one of its jobs in a folder of that name, waits for one."""
    logs = [log, *log.with_suffix("").glob("*/log.txt")]
    return any("at the calibration" in path.read_text() for path in logs)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["here", "local"])
def test_processes_that_do_one_grid_do_different_cells(
    settings: Settings, tmp_path: Path, launcher: str
) -> None:
    arguments = [*settings(), "dataset=[ptb]", "report=false"]
    grid = [
        "-m",
        *arguments,
        f"hydra/launcher={launcher}",
        "method=dense,svd,asvd_0,asvd_i,nsvd_i",
        "ratio=0.2,0.3,0.4",
    ]
    count = 3
    run_process(*arguments, "method=asvd_i", f"results_dir={tmp_path / 'alone'}")
    (of_alone,) = (tmp_path / "alone" / "cache" / "calibration").glob("*.lock")
    lock = plan_cell(compose(*arguments)).cache_dir / "calibration" / of_alone.name
    lock.parent.mkdir(parents=True)
    logs = [tmp_path / f"{number}.txt" for number in range(count)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(hold(lock, "the calibration, for the test", pytest.fail))
        processes = [
            subprocess.Popen(command(*grid, f"hydra.sweep.dir={log.with_suffix('')}"),
                             stdout=subprocess.PIPE, stderr=log.open("w"), text=True)
            for log in logs
        ]  # fmt: skip
        wait_until(lambda: all(map(is_at_the_calibration, logs)), seconds=240)
    # Each is at a cell of its own now, and goes on with it.
    ended = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * count, ended
    done = [int((re.findall(r"(\d+) done", out) or ["0"])[0]) for out, _ in ended]
    skipped = [int((re.findall(r"(\d+) skipped", out) or ["0"])[0]) for out, _ in ended]
    assert sum(done) == len(cells_of(arguments)) == 13  # each was done by one process
    assert [sum(both) for both in zip(done, skipped, strict=True)] == [15] * count
    assert min(done) > 0
    assert "13 done" not in run_process(*grid).stdout
