"""A grid on other processes: of this machine, of Slurm, of Ray. Each engine is started for real."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.command_line import (
    Capture,
    Settings,
    cells_of,
    command,
    results_dir,
    run_main,
    run_process,
    wait_until,
)
from helpers.configuration import composed
from helpers.jobs import NotesItsProcess
from hydra._internal.callbacks import Callbacks
from hydra.types import HydraContext, TaskFunction
from omegaconf import open_dict

from nsvd_exp.cli.launchers import local, ray, slurm, task
from nsvd_exp.models.devices import memory_for_bases

SCRIPTS = Path(__file__).resolve().parent / "slurm"

ENGINES = {
    "local": ["hydra/launcher=local", "hydra.launcher.n_jobs=2"],
    "slurm": [
        "hydra/launcher=slurm",
        "hydra.launcher.gpus_per_node=null",
        "hydra.launcher.cpus_per_task=1",
        "hydra.launcher.check_s=1",
    ],
    "ray": ["hydra/launcher=ray", "hydra.launcher.num_cpus=1"],
}

TWELVE_CELLS = ["method=asvd_0,fragile,svd,asvd_i", "ratio=0.2,0.3,0.5"]
FOUR_CELLS = ["method=fragile,svd", "ratio=0.2,0.3"]

# A method whose first job writes down its process and waits to be killed.
FRAGILE = """
import os
import time
from dataclasses import dataclass

from nsvd_exp.methods import Method

PID = {pid!r}


@dataclass(frozen=True)
class Fragile(Method):
    def metric(self, statistics):
        if not os.path.exists(PID):
            with open(PID + ".new", "w") as file:
                file.write(str(os.getpid()))
            os.rename(PID + ".new", PID)
            time.sleep(300)
        return statistics.gram
"""


@pytest.fixture
def fragile(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], Path]:
    """The arguments of a grid with method `fragile`, and where its first cell's process id is."""
    pid = tmp_path / "pid"
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "fragile.py").write_text(FRAGILE.format(pid=str(pid)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"), prepend=os.pathsep)
    method = tmp_path / "conf" / "method" / "fragile.yaml"
    method.parent.mkdir(parents=True)
    method.write_text("name: fragile\n_target_: fragile.Fragile\n")
    return ["-m", f"--config-dir={tmp_path / 'conf'}", *settings(), "dataset=[ptb]"], pid


@pytest.fixture(scope="session")
def slurm_conf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The slurm.conf of a Slurm of one node that was started for these tests."""
    missing = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {missing[0]} here: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("only root can start a Slurm")
    pytest.importorskip("submitit", reason="pip install -e '.[slurm]'")
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([SCRIPTS / "start.sh", folder], check=True)
    yield folder / "slurm.conf"
    subprocess.run([SCRIPTS / "stop.sh", folder], check=True)


@pytest.fixture
def slurm_here(slurm_conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm's commands speak with the Slurm of these tests."""
    monkeypatch.setenv("SLURM_CONF", str(slurm_conf))


@pytest.fixture
def engine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an engine, which is there."""
    if request.param == "slurm":
        request.getfixturevalue("slurm_here")
    if request.param == "ray":
        pytest.importorskip("ray", reason="pip install -e '.[ray]'")
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        monkeypatch.setenv("HOME", str(tmp_path))  # where Ray keeps the token of its own cluster
    return str(request.param)


@contextmanager
def started(arguments: list[str], pid: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The command and the process of its fragile cell, which waits to be killed."""
    # What a shell has started in the background ignores SIGINT, and hands that on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGINT, before)
    try:
        wait_until(pid.exists, 120, process)
        yield process, int(pid.read_text())
    finally:
        process.kill()


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def calibrations(arguments: list[str]) -> int:
    """How often the statistics were made, by the logs of all jobs."""
    return sum(log.count("calibrating on") for log in of_all_jobs(arguments, "log.txt"))


def of_all_jobs(arguments: list[str], name: str) -> list[str]:
    """What stands in this file of each job's folder."""
    found = [path.read_text() for path in results_dir(arguments).glob(f"hydra/*/*/{name}")]
    assert len(found) >= 12
    return found


DEATHS = {
    "local": r"its process was killed \(SIGKILL, as the kernel does when memory runs out\)",
    "slurm": r"Slurm job \d+_\d+ ended as FAILED \(SIGKILL\)",
    "ray": r"WorkerCrashedError: The worker died unexpectedly",
}


@pytest.mark.slow
@pytest.mark.parametrize("engine", list(ENGINES), indirect=True)
def test_a_killed_process_costs_its_own_cell_and_the_same_command_does_it(
    engine: str, fragile: tuple[list[str], Path]
) -> None:
    arguments = [*fragile[0], *ENGINES[engine], *TWELVE_CELLS]
    with started(arguments, fragile[1]) as (process, victim):
        os.kill(victim, signal.SIGKILL)
        out, err = process.communicate(timeout=180)
    assert process.returncode == 1, err
    assert "11 done, 1 failed" in out
    assert re.findall(r"^(\d+)/12 ", err, re.MULTILINE) == [str(n) for n in range(1, 13)]
    (failure,) = re.findall(r"^failed: (.*)", err, re.MULTILINE)
    said = re.match(rf"llama-0 fragile (0\.\d): {DEATHS[engine]}", failure)
    assert said, failure
    assert Path(failure.partition("; see ")[2].partition(". What")[0]).exists()
    states = {(r["method"], r["ratio"]): r["status"] for r in cells_of(arguments)}
    assert states.pop(("fragile", float(said[1]))) == "partial"
    assert set(states.values()) == {"done"}
    assert calibrations(arguments) == 1

    again = run_process(*arguments)
    assert again.returncode == 0, again.stderr
    assert "1 done, 11 skipped" in again.stdout
    assert [r["status"] for r in cells_of(arguments)] == ["done"] * 12
    assert calibrations(arguments) == 1
    # A job of Slurm has memory of its own; the others share that of the machine.
    configs = of_all_jobs(arguments, ".hydra/config.yaml")
    assert {"memory_gb: null" in config for config in configs} == {engine == "slurm"}


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_command_and_leave_no_lock_behind(
    fragile: tuple[list[str], Path], sent: signal.Signals
) -> None:
    arguments = [*fragile[0], *ENGINES["local"], *FOUR_CELLS]
    with started(arguments, fragile[1]) as (process, worker):
        process.send_signal(sent)
        _, err = process.communicate(timeout=180)
    assert process.returncode == (130 if sent == signal.SIGINT else -sent)
    assert "Traceback" not in err
    wait_until(lambda: not is_alive(worker), 60)
    again = run_process(*arguments)
    assert again.returncode == 0, again.stderr
    assert [r["status"] for r in cells_of(arguments)] == ["done"] * 4


def task_of(*arguments: str, number: int = 0, function: TaskFunction = print) -> task.Task:
    """A job of a grid."""
    job = composed(*arguments, with_hydra=True)
    with open_dict(job):
        job.hydra.job.id = job.hydra.job.num = number
        job.hydra.sweep.dir = str(job.hydra.sweep.dir)
    return task.Task(job, function, HydraContext(None, Callbacks()), os.getcwd())  # type: ignore[arg-type]


def test_each_process_has_a_gpu_of_its_own_and_keeps_it_and_what_its_jobs_share(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    function, arguments = NotesItsProcess(), settings()
    tasks = [task_of(*arguments, number=number, function=function) for number in range(6)]
    environments = local.environments(None, ["5", "7"], cores=2, tasks=len(tasks))
    returned = [done.return_value for _, done in local.run(tasks, environments)]
    assert returned == ["noted"] * 6
    rows = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
    places = {process: (gpu, threads) for process, gpu, threads, _ in rows}
    assert sorted(places.values()) == [("5", 1), ("7", 1)]
    for process in places:
        jobs = [number for by, _, _, number in rows if by == process]
        assert jobs == list(range(1, len(jobs) + 1))
    assert function.jobs == 0


@pytest.mark.parametrize(
    ("devices", "visible", "count", "gpus"),
    [
        ({"auto"}, "5,7", 2, ["5", "7"]),
        ({"cuda", "cpu"}, "5,7", 1, ["5"]),
        ({"auto"}, None, 3, ["0", "1", "2"]),
        ({"auto"}, None, 0, []),
        ({"cpu"}, "5,7", 2, []),
    ],
)
def test_tasks_get_the_gpus_that_this_process_may_use(
    devices: set[str], visible: str | None, count: int, gpus: list[str]
) -> None:
    assert local.gpus_for(devices, visible, count) == gpus


def test_gpus_and_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    gpus = [str(n) for n in range(8)]
    eight = local.environments(None, gpus, 96, tasks=35)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in eight] == gpus
    assert {e["OMP_NUM_THREADS"] for e in eight} == {"12"}
    assert len(local.environments(4, gpus, 96, tasks=35)) == 4
    assert len(local.environments(None, gpus, 96, tasks=3)) == 3
    shared = local.environments(4, ["0", "1"], 4, tasks=35)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in shared] == ["0", "1", "0", "1"]


def test_without_a_gpu_two_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert local.environments(None, [], 8, tasks=35) == [{"OMP_NUM_THREADS": "4"}] * 2
    assert local.environments(3, [], 2, tasks=35) == [{"OMP_NUM_THREADS": "1"}] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert local.environments(None, [], 8, tasks=35) == [{"OMP_NUM_THREADS": "6"}] * 2


def test_a_cell_on_ray_gets_a_gpu_and_its_share_of_the_cpus() -> None:
    head, box = {"CPU": 4.0}, {"CPU": 96.0, "GPU": 8.0}
    assert ray.share_of([head, box, {"CPU": 32.0, "GPU": 4.0}]) == (1, 8)
    assert ray.share_of([{"CPU": 16.0}]) == (0, 8)
    assert ray.share_of([{"CPU": 1.0}, {"memory": 1e9}]) == (0, 1)


def test_a_cell_on_ray_gets_its_share_of_the_memory() -> None:
    large, small = {"CPU": 96.0, "memory": 960e9}, {"CPU": 8.0, "memory": 16e9}
    assert ray.memory_of([large], 12) == pytest.approx(120e9)
    assert ray.memory_of([large, small, {"GPU": 1.0}], 12) == pytest.approx(16e9)


def test_bases_of_all_processes_take_no_more_than_those_of_one(settings: Settings) -> None:
    tasks = [task_of(*settings()), task_of(*settings(), "cache.memory_gb=3")]
    task.bound_bases(tasks, memory_for_bases(8))
    assert tasks[0].config.cache.memory_gb == pytest.approx(memory_for_bases() / 8e9, abs=1e-3)
    assert tasks[1].config.cache.memory_gb == 3


@pytest.mark.parametrize(
    ("exitcode", "text"),
    [
        (-9, "killed (SIGKILL, as the kernel does when memory runs out)"),
        (-11, "killed (SIGSEGV)"),
        (3, "ended with exit status 3"),
    ],
)
def test_the_end_of_a_process_is_put_in_words(exitcode: int, text: str) -> None:
    assert task.how_it_ended(exitcode) == f"its process was {text}".replace("was ended", "ended")


@pytest.mark.parametrize(("engine", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_an_engine_that_is_not_installed_is_named_with_the_command_that_installs_it(
    settings: Settings, capsys: Capture, monkeypatch: pytest.MonkeyPatch, engine: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    code, out, err = run_main(capsys, "-m", *ENGINES[engine], *settings(), "method=svd,dense")
    assert code == 2
    assert f"{package}, which is not installed: pip install -e '.[{engine}]'" in err
    assert err.count("error: ") == 1
    assert out == ""


@pytest.mark.parametrize("address", ["ray://127.0.0.1:1", "127.0.0.1:1"])
def test_where_no_ray_answers_is_said_at_once(
    settings: Settings, capsys: Capture, address: str
) -> None:
    pytest.importorskip("ray", reason="pip install -e '.[ray]'")
    arguments = ["-m", "hydra/launcher=ray", f"hydra.launcher.address={address}", *settings()]
    code, _, err = run_main(capsys, *arguments, "method=svd,dense")
    assert code == 2
    assert f"hydra.launcher.address={address}: no Ray answers there" in err


def test_slurm_is_for_machines_that_can_submit(
    settings: Settings, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("PATH", "")
    code, _, err = run_main(capsys, "-m", "hydra/launcher=slurm", *settings(), "method=svd,dense")
    assert code == 2
    assert "there is no sbatch here" in err


@pytest.mark.slow
@pytest.mark.usefixtures("slurm_here")
def test_what_slurm_refuses_is_said_with_the_settings(settings: Settings, capsys: Capture) -> None:
    arguments = ["-m", "hydra/launcher=slurm", *settings(), "method=svd,dense"]
    code, out, err = run_main(capsys, *arguments)
    assert code == 2
    assert err.count("Invalid generic resource (gres) specification") == 1
    assert "gpus_per_node=1" in err
    assert "mem_gb=null" in err
    assert "Traceback" not in err
    assert out == ""
    code, _, err = run_main(capsys, *arguments, "hydra.launcher.cpus_per_task=two")
    assert code == 2
    assert '"cpus_per_task" expected type' in err
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.usefixtures("slurm_here")
def test_an_interrupted_command_cancels_its_jobs(fragile: tuple[list[str], Path]) -> None:
    arguments = [*fragile[0], *ENGINES["slurm"], *FOUR_CELLS]
    with started(arguments, fragile[1]) as (process, worker):
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=180)
    assert process.returncode == 130, err
    (array,) = re.findall(r"squeue --job (\d+)", err)
    wait_until(lambda: not is_alive(worker), 180)
    wait_until(lambda: not {*(slurm.states_of(array) or {}).values()} & slurm.NOT_ENDED, 180)


@pytest.mark.parametrize(
    ("answer", "states"),
    [
        ("printf '7_0 RUNNING 0\\n7_1 FAILED 9\\n7_2 FAILED 256\\n7_3 FAILED 35072\\n'",
         {"7_0": "RUNNING", "7_1": "FAILED (SIGKILL)", "7_2": "FAILED", "7_3": "FAILED (SIGKILL)"}),
        ("printf '7_4 TIMEOUT 15\\n'", {"7_4": "TIMEOUT"}),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", {}),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", None),
    ],
)  # fmt: skip
def test_a_slurm_that_does_not_answer_is_no_job_that_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, states: dict[str, str] | None
) -> None:
    (tmp_path / "squeue").write_text(f"#!/bin/sh\n{answer}\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert slurm.states_of("7") == states
