"""`cache_dir`: what is kept, a limit that spares what is in use, and `python -m nsvd_exp.cache`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.cells import new_process, run
from helpers.configuration import compose

from nsvd_exp.cli.cache import main
from nsvd_exp.config.schema import KEEPS
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment import session as stages
from nsvd_exp.storage.cache import BASES, KEPT, KINDS, STATISTICS, Cache, cache_at
from nsvd_exp.storage.files import hold
from nsvd_exp.storage.tensors import FORMAT

Settings = Callable[..., list[str]]
ABOUT = {"model": "LLaMA-7B", "dtype": "float16", "calibration": "256 x 2048 tokens", "metric": "M"}


def put(cache: Cache, key: str, size: int, kind: str = BASES, used: float | None = None) -> Path:
    """An entry of that size, used last at that time; it is in use until the next."""
    cache.use(kind, key, ABOUT)
    path = cache.folder / kind / key / "layer.safetensors"
    cache.write(kind, path, size, lambda file: file.write_bytes(bytes(size)))
    if used is not None:
        os.utime(cache.folder / kind / f"{key}.json", (used, used))
    return path


def keys(cache: Cache) -> list[str]:
    return [entry.key for entry in cache.entries()]


USER = """
import sys, time
from pathlib import Path
from nsvd_exp.storage.cache import Cache
Cache(Path(sys.argv[1])).use(sys.argv[2], sys.argv[3], {})
print("used", flush=True)
time.sleep(60)
"""


@contextmanager
def used_elsewhere(cache: Cache, key: str, kind: str = BASES) -> Iterator[subprocess.Popen[str]]:
    """Another process uses that entry inside."""
    command = [sys.executable, "-c", USER, str(cache.folder), kind, key]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "used\n"
        try:
            yield process
        finally:
            process.kill()


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
    cache = Cache(tmp_path, limit=2500)
    theirs = put(cache, "theirs", 1000, used=1.0)
    put(cache, "nobodys", 1000, used=2.0)
    with used_elsewhere(cache, "theirs"):
        os.utime(tmp_path / BASES / "theirs.json", (1.0, 1.0))
        ours = put(cache, "ours", 1000)
        assert sorted(keys(cache)) == ["ours", "theirs"]
        for _ in range(2):  # no room: not kept, and said once
            other = cache.folder / BASES / "ours" / "another.safetensors"
            assert not cache.write(BASES, other, 1000, lambda path: path.write_bytes(b"x"))
            assert not other.exists()
        assert caplog.text.count("has no room for") == 1
        assert "cache.limit_gb=2.5e-06" in caplog.text
    assert theirs.exists()
    assert ours.exists()
    # The other process is dead: what it used is nobody's now.
    put(cache, "next", 1000)
    assert not theirs.exists()
    assert len(list((tmp_path / "in_use").glob("*.lock"))) == 1


def test_one_entry_of_each_kind_is_in_use_by_a_process(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    put(cache, "statistics", 10, STATISTICS)
    put(cache, "gram", 10)
    put(cache, "identity", 10)
    used = {entry.key: entry.users for entry in cache.entries()}
    me = (f"process {os.getpid()} on {socket.gethostname()}",)
    assert used == {"statistics": me, "gram": (), "identity": me}


def test_what_a_dead_process_left_half_written_is_part_of_its_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    put(cache, "a", 10)
    (tmp_path / BASES / "a" / ".layer.safetensors.xyz.tmp").write_bytes(bytes(1000))
    (tmp_path / STATISTICS).mkdir()
    (tmp_path / STATISTICS / ".b.safetensors.xyz.tmp").write_bytes(bytes(500))
    cache.use(BASES, "other", ABOUT)
    sizes = {entry.key: entry.bytes for entry in cache.entries()}
    assert sizes["a"] > 1010
    assert sizes["b"] == 500
    cache.remove(lambda entry: entry.key in "ab")
    assert keys(cache) == ["other"]
    assert {path.name for path in (tmp_path / BASES).iterdir()} == {"other.json"}


def test_keep_none_writes_nothing_and_calibrates_once_a_process(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    real = stages.calibrate
    monkeypatch.setattr(stages, "calibrate", lambda *args: calls.append(0) or real(*args))
    arguments = [*settings(), "dataset=[ptb]", "cache.keep=none", "cache_dir=/dev/null/nowhere"]
    for method in ("asvd_i", "nsvd_i", "asvd_0"):
        assert run(*arguments, f"method={method}")["status"] == "done"
    assert len(calls) == 1
    new_process()
    run(*arguments, "method=asvd_ii")
    assert len(calls) == 2
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"cells"}


def test_kept_statistics_are_read_once_a_process(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*settings(), "dataset=[ptb]"]
    run(*arguments, "method=asvd_i")
    new_process()
    reads = []
    real = stages.Calibration.load
    monkeypatch.setattr(
        stages.Calibration, "load", classmethod(lambda _, path: reads.append(path) or real(path))
    )
    for method in ("asvd_ii", "nsvd_i", "asvd_0"):
        assert run(*arguments, f"method={method}")["status"] == "done"
    assert len(reads) == 1


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
    (kept,) = (tmp_path / "results/cache/calibration").glob("*.safetensors")
    content, known = kept.read_bytes(), f'"format": "{FORMAT}"'.encode()
    assert known in content
    kept.write_bytes(content.replace(known, b'"format": "0"'))
    new_process()
    again = run(*arguments, "method=asvd_ii", "ratio=0.3")
    assert caplog.text.count("made again") == 1
    assert again["datasets"]["ptb"]["nll"] == pytest.approx(first["datasets"]["ptb"]["nll"])


CALIBRATOR = """
import sys
sys.path.insert(0, sys.argv[1])
from nsvd_exp.experiment import session as stages
real = stages.calibrate
def calibrate(*args):
    import time
    print("calibrating", flush=True)
    time.sleep(1)
    return real(*args)
stages.calibrate = calibrate
from helpers.cells import run
print(run(*sys.argv[2:])["status"], flush=True)
"""


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


HOLDER = """
import sys, time
from pathlib import Path
from nsvd_exp.storage.files import hold
with hold(Path(sys.argv[1]), "a long work", print):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_whose_owner_is_gone_blocks_nobody(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGKILL)
    assert "a long work" in (tmp_path / "x.lock.owner").read_text()
    with hold(path, "the next", pytest.fail):
        pass
    assert not (tmp_path / "x.lock.owner").exists()


def test_a_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import fcntl

    def no_flock(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_flock)
    with (
        pytest.warns(UserWarning, match="flock"),
        pytest.raises(NsvdError, match="has no flock: mount it with flock"),
        hold(tmp_path / "x.lock", "x", pytest.fail),
    ):
        pytest.fail("it was held")


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
    assert f"process {os.getpid()} on {socket.gethostname()}" in out


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


def test_one_process_has_one_cache_of_a_folder(tmp_path: Path) -> None:
    assert cache_at(tmp_path, "bases", 1.0) is cache_at(tmp_path, "bases", 1.0)
    assert cache_at(tmp_path, "bases", 1.5).limit == 1_500_000_000
