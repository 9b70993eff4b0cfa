"""`cache_dir`: what is kept, a limit that spares what is in use, and `python -m nsvd_exp.cache`."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.cells import run
from helpers.configuration import compose

from nsvd_exp.cli.cache import main
from nsvd_exp.config.sections import KEEPS
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.experiment.session import Session
from nsvd_exp.storage.cache import BASES, KEPT, KINDS, STATISTICS, Cache
from nsvd_exp.storage.files import ScratchFolder
from nsvd_exp.storage.temporary import make_temporary, make_temporary_folder
from nsvd_exp.storage.tensors import FORMAT

Settings = Callable[..., list[str]]
ME = f"process {os.getpid()} on {socket.gethostname()}"
ABOUT = {"model": "LLaMA-7B", "dtype": "float16", "calibration": "256 x 2048 tokens", "metric": "M"}


def put(cache: Cache, key: str, size: int, kind: str = BASES, used: float | None = None) -> Path:
    """An entry of that size, last used at that time; it is in use until the next."""
    cache.use(kind, key, ABOUT)
    path = cache.folder / kind / key / "layer.safetensors"
    path.parent.mkdir(exist_ok=True)
    cache.write(kind, size, lambda: path.write_bytes(bytes(size)))
    if used is not None:
        os.utime(cache.folder / kind / f"{key}.json", (used, used))
    return path


def keys(cache: Cache) -> list[str]:
    return [entry.key for entry in cache.entries()]


def test_the_settings_are_those_of_the_schema() -> None:
    assert tuple(KEPT) == KEEPS


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("cache.keep=basis", "unknown cache.keep 'basis'. Did you mean bases"),
        ("cache.limit_gb=-1", "cache.limit_gb=-1.0: expected a number >= 0"),
        ("cache.memory_gb=inf", "cache.memory_gb=inf: expected a number >= 0"),
    ],
)
def test_settings_out_of_range_are_refused(setting: str, message: str) -> None:
    with pytest.raises(NsvdError, match=message.replace(".", r"\.")):
        compose(setting)


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=3500)
    for age, key in enumerate(("new", "old", "older")):
        put(cache, key, 1000, used=time.time() - 1000 * (age + 1))
    assert keys(cache) == ["older", "old", "new"]
    put(cache, "now", 1000)
    assert keys(cache) == ["old", "new", "now"]
    assert sum(entry.bytes for entry in cache.entries()) <= 3500
    cache.use(BASES, "old", ABOUT)
    put(cache, "next", 1000)
    assert keys(cache) == ["now", "old", "next"]


def test_what_is_in_use_stays_whatever_the_limit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache, others = Cache(tmp_path, limit=2500), Cache(tmp_path)
    theirs = put(others, "theirs", 1000, used=1.0)
    put(cache, "nobodys", 1000, used=2.0)
    ours = put(cache, "ours", 1000)
    assert keys(cache) == ["theirs", "ours"]
    for _ in range(2):  # no room: not kept, and said once
        assert not cache.write(BASES, 1000, lambda: pytest.fail("written"))
    assert caplog.text.count("has no room for") == 1
    assert "cache.limit_gb=2.5e-06" in caplog.text
    assert theirs.exists()
    assert ours.exists()
    del others  # what it used is nobody's now
    put(cache, "next", 1000)
    assert not theirs.exists()
    assert len(list((tmp_path / "in_use").glob("*.lock"))) == 1


USER = """
import sys, time
from pathlib import Path
from nsvd_exp.storage.cache import Cache
cache = Cache(Path(sys.argv[1]))
cache.use("bases", "theirs", {})
print("used", flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_what_another_process_uses_stays_until_it_is_dead(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    command = [sys.executable, "-c", USER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "used\n"
        gone, kept = cache.remove(lambda entry: True)
        process.kill()
    assert (gone, [entry.users for entry in kept]) == ([], [(theirs(process.pid),)])
    assert [entry.users for entry in cache.entries()] == [()]
    assert not list((tmp_path / "in_use").iterdir())


def theirs(pid: int | None) -> str:
    return f"process {pid} on {socket.gethostname()}"


def test_a_forked_process_protects_its_own_and_leaves_its_parents(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    put(cache, "parents", 10)

    def child() -> None:
        put(cache, "childs", 10)
        found = {entry.key: entry.users for entry in cache.entries()}
        assert found == {"parents": (ME,), "childs": (theirs(os.getpid()),)}

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert {entry.key: entry.users for entry in cache.entries()} == {
        "parents": (ME,),
        "childs": (),
    }


def test_one_entry_of_each_kind_is_in_use(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    put(cache, "statistics", 10, STATISTICS)
    put(cache, "gram", 10)
    put(cache, "identity", 10)
    used = {entry.key: entry.users for entry in cache.entries()}
    assert used == {"statistics": (ME,), "gram": (), "identity": (ME,)}


def left_by_the_dead(folder: Path) -> list[Path]:
    """One temporary file or folder of each kind, as a process leaves it that was killed."""
    files = [
        folder / BASES / "a" / ".layer.safetensors.xyz.tmp",
        folder / STATISTICS / ".b.json.xyz.tmp",
        folder / ".hidden.xyz",
        folder / ".streamed.xyz" / "model.safetensors",
    ]
    for size, path in enumerate(files, start=500):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    return [*files[:3], files[3].parent]


def test_what_dead_processes_left_is_shown_counted_and_goes_with_the_next_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = Cache(tmp_path, limit=10_000)
    kept = put(cache, "a", 10)
    left = left_by_the_dead(tmp_path)
    living = ScratchFolder(tmp_path, ".streamed.other.")
    handle, written = make_temporary_folder(kept.parent, ".other.safetensors.", ".tmp")
    found = {one.path: one for one in cache.temporaries()}
    assert {path for path in found if found[path].is_dead} == set(left)
    assert {path for path in found if not found[path].is_dead} == {living.path, written}
    assert [found[path].bytes for path in left] == [500, 501, 502, 503]
    assert [entry.key for entry in cache.entries()] == ["a"], "no entry of what is half-written"
    code, out, _ = shown(capsys, "list", f"--cache-dir={tmp_path}")
    assert code == 0
    for path, one in found.items():
        (line,) = [s for s in out.splitlines() if str(path.relative_to(tmp_path)) in s]
        assert ("nobody: goes with the next run" if one.is_dead else "a living process") in line
    assert all(path.exists() for path in left), "to look removes nothing"
    cache.tidy()
    assert not any(path.exists() for path in left)
    assert kept.exists()
    assert {one.path for one in cache.temporaries()} == {living.path, written}
    os.close(handle)


def test_temporary_files_are_part_of_the_limit(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=3000)
    put(cache, "old", 1000, used=1.0)
    cache.use(BASES, "new", ABOUT)
    for folder, prefix in ((tmp_path, ".hidden."), (tmp_path / BASES, ".k.tmp.")):
        assert "old" in keys(cache), "hidden states are outside of it"
        handle, path = make_temporary(folder, prefix)
        os.truncate(path, 1500)
        put(cache, "new", 1000)
        path.unlink()
        os.close(handle)
    assert keys(cache) == ["new"]


@pytest.mark.parametrize("method", ["asvd_i", "dense"])
def test_a_run_removes_what_dead_processes_left(
    method: str, settings: Settings, tmp_path: Path
) -> None:
    arguments = [*settings(), "dataset=[ptb]", f"method={method}"]
    run(*arguments)
    (cell,) = (tmp_path / "results/cells").iterdir()
    left = [cell / ".result.json.xyz.tmp"]
    left[0].write_text("half")
    if method != "dense":  # which has nothing to do with the cache
        left += left_by_the_dead(tmp_path / "results/cache")
    assert plan_cell(compose(*arguments)).file.read() is not None  # as a run that finds it done
    assert not left[0].exists()
    run(*arguments, "dataset=[c4]")
    assert not any(path.exists() for path in left)


ODD = {
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "nested": lambda path: path.write_text("[" * 200_000),
    "other JSON": lambda path: path.write_text('{"who": [], "used": [1], "reads": 3, "model": {}}'),
    "a FIFO": lambda path: (path.unlink(), os.mkfifo(path)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a dead link": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "a link to a device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
}


@pytest.mark.parametrize("name", ODD)
def test_nothing_that_stands_in_the_cache_can_crash_a_cell(
    name: str, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*settings(), "dataset=[ptb]", "cache.keep=bases"]
    expected = run(*arguments, "method=asvd_i")["datasets"]["ptb"]["nll"]
    folder = tmp_path / "results/cache"
    stored = [path for suffix in (".json", ".safetensors") for path in folder.rglob(f"*{suffix}")]
    assert len(stored) > 20
    for path in stored:
        ODD[name](path)
    again = run(*arguments, "method=nsvd_i", "k1=1")
    assert again["error"] is None
    assert again["datasets"]["ptb"]["nll"] == pytest.approx(expected, rel=1e-6)
    capsys.readouterr()
    code, _, err = shown(capsys, "list", f"--cache-dir={folder}")
    assert (code, err) == (0, "")


def exchanged(folder: Path, pattern: str) -> int:
    """Turn the files of a pattern round by one; how many there are."""
    files = sorted(folder.glob(pattern))
    contents = [path.read_bytes() for path in files]
    for path, content in zip(files, [*contents[1:], contents[0]], strict=True):
        path.write_bytes(content)
    return len(files)


@pytest.mark.parametrize("what", ["layers of a basis", "bases of two metrics", "two calibrations"])
def test_what_is_of_something_else_is_made_again_and_said_once(
    what: str, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = [*settings(), "dataset=[ptb]", "cache.keep=bases"]
    expected = run(*arguments, "method=asvd_i")["datasets"]["ptb"]["nll"]
    run(*arguments, "method=asvd_0")
    run(*arguments, "method=asvd_i", "calibration.seed=4")
    cache = tmp_path / "results/cache"
    if what == "two calibrations":
        one, other = (path for path in (cache / STATISTICS).iterdir() if path.is_dir())
        one.rename(cache / "x"), other.rename(one), (cache / "x").rename(other)
    elif what == "bases of two metrics":
        for layer in {path.name for path in cache.glob("bases/*/*.safetensors")}:
            assert exchanged(cache, f"bases/*/{layer}") == 3
    else:
        for folder in (cache / BASES).iterdir():
            if folder.is_dir():
                assert exchanged(folder, "*.q_proj.safetensors") == 2
                assert exchanged(folder, "*.[kv]_proj.safetensors") == 4
    again = run(*arguments, "method=nsvd_i", "k1=1")
    assert again["error"] is None
    assert again["datasets"]["ptb"]["nll"] == pytest.approx(expected, rel=1e-6)
    assert caplog.text.count("made again") == 1
    caplog.clear()
    run(*arguments, "method=nsvd_i", "k1=0.9")
    assert "made again" not in caplog.text


def calibrations(caplog: pytest.LogCaptureFixture) -> int:
    """How many passes of the model over calibration text there have been in this test."""
    return caplog.text.count("calibrating on ")


def test_keep_none_writes_nothing_and_calibrates_once_a_process(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "nsvd_exp")
    arguments = [*settings(), "dataset=[ptb]", "cache.keep=none", "cache_dir=/dev/null/nowhere"]
    session = Session()
    for method in ("asvd_i", "nsvd_i", "asvd_0"):
        assert run(*arguments, f"method={method}", session=session)["status"] == "done"
    assert calibrations(caplog) == 1
    run(*arguments, "method=asvd_ii")
    assert calibrations(caplog) == 2
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"cells"}


def test_kept_statistics_are_loaded_once_a_process(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "nsvd_exp")
    arguments = [*settings(), "dataset=[ptb]"]
    run(*arguments, "method=asvd_i")
    session = Session()
    run(*arguments, "method=asvd_ii", session=session)
    assert calibrations(caplog) == 1
    (index,) = (tmp_path / "results/cache/calibration").glob("*/index.json")
    index.unlink()  # whoever loaded the statistics again would have to make them again
    for method in ("nsvd_i", "asvd_0"):
        assert run(*arguments, f"method={method}", session=session)["status"] == "done"
    assert calibrations(caplog) == 1


def test_a_calibration_without_room_is_not_kept_and_the_cell_goes_on(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = run(*settings(), "dataset=[ptb]", "cache.limit_gb=0")
    assert result["status"] == "done"
    assert "calibration is not kept" in caplog.text
    assert not list((tmp_path / "results/cache").rglob("*.safetensors"))


def test_statistics_of_another_version_are_made_again(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = [*settings(), "dataset=[ptb]"]
    first = run(*arguments, "method=asvd_i")
    (index,) = (tmp_path / "results/cache/calibration").glob("*/index.json")
    content, known = index.read_text(), f'"format": "{FORMAT}"'
    assert known in content
    index.write_text(content.replace(known, '"format": "0"'))
    again = run(*arguments, "method=asvd_ii", "ratio=0.3")
    assert caplog.text.count("made again") == 1
    assert again["datasets"]["ptb"]["nll"] == pytest.approx(first["datasets"]["ptb"]["nll"])


CALIBRATOR = """
import sys, time
sys.path.insert(0, sys.argv[1])
from helpers.configuration import compose
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.experiment.run import run_cell
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.experiment.session import Session
from nsvd_exp.progress import Observer
class Slow(Observer):
    def progress(self, stage):
        if stage == "calibrate":
            print("calibrating", flush=True)
            time.sleep(1)
print(run_cell(plan_cell(compose(*sys.argv[2:])), Session(), Slow())["status"], flush=True)
"""


@pytest.mark.slow
def test_two_processes_calibrate_once(settings: Settings) -> None:
    common = [*settings(), "dataset=[ptb]", "cache.keep=bases"]
    tests = str(Path(__file__).parent)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CALIBRATOR, tests, *common, f"method={method}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for method in ("asvd_i", "nsvd_i")
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    said = [line for out, _ in outputs for line in out.splitlines()]
    assert sorted(said) == ["calibrating", "done", "done"], outputs


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_list_says_what_for_which_model_how_large_and_who_uses_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = Cache(tmp_path)
    put(cache, "a", 2_500_000, STATISTICS, used=time.mktime((2025, 3, 21, 12, 30, 0, 0, 0, -1)))
    code, out, _ = shown(capsys, "list", f"--cache-dir={tmp_path}")
    assert code == 0
    for part in ("calibration", "LLaMA-7B float16", "256 x 2048 tokens under M", "2.5 MB"):
        assert part in out
    assert "2025-03-21 12:30" in out
    assert ME in out


def test_clear_removes_what_was_asked_for_and_spares_what_is_in_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, place = Cache(tmp_path), f"--cache-dir={tmp_path}"

    def fill() -> None:
        now = time.time()
        for kind in KINDS:
            put(cache, "old", 10, kind, used=now - 10 * 86400)
            put(cache, "new", 10, kind)
            put(cache, "mine", 10, kind)

    for options, left in (
        (
            ["--kind=bases"],
            ["bases mine", "calibration mine", "calibration new", "calibration old"],
        ),
        (["--older-than=7"], [f"{kind} {key}" for kind in KINDS[::-1] for key in ("mine", "new")]),
        (["--model=llama", "--kind=calibration", "--older-than=20"], None),
        (["--model=opt"], None),
        (["--model=LLAMA"], ["bases mine", "calibration mine"]),
        (["--all"], ["bases mine", "calibration mine"]),
    ):
        fill()
        before = [f"{entry.kind} {entry.key}" for entry in cache.entries()]
        code, out, _ = shown(capsys, "clear", *options, place)
        assert code == 0
        after = sorted(f"{entry.kind} {entry.key}" for entry in cache.entries())
        assert after == sorted(left or before), options
        assert f"removed {len(before) - len(after)} of" in out
        assert ("in use by process" in out) == (left is not None and options[0] != "--older-than=7")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clear"], "either --all, or any of"),
        (["clear", "--all", "--kind=bases"], "either --all, or any of"),
        (["list", "--cache-dir=/no/such/folder"], "/no/such/folder is not there"),
    ],
)
def test_a_wrong_command_is_one_message(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if len(arguments) < 2 or "cache-dir" not in arguments[1]:
        arguments = [*arguments, f"--cache-dir={tmp_path}"]
    code, _, err = shown(capsys, *arguments)
    assert code == 2
    assert message in err


def test_looking_at_the_cache_imports_no_torch(tmp_path: Path) -> None:
    script = "import sys; from nsvd_exp.cli.cache import main; main(sys.argv[1:]); "
    script += "print('torch' in sys.modules)"
    command = [sys.executable, "-c", script, "list", f"--cache-dir={tmp_path}"]
    assert subprocess.run(command, capture_output=True, text=True).stdout.endswith("False\n")
