"""Weights & Biases: what a run holds, which runs there are, and that W&B never costs a cell."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pandas
import pytest
import wandb
import yaml
from helpers.command_line import REPOSITORY, Capture, Settings, cells_of, results_dir
from helpers.configuration import compose
from helpers.fake_wandb import FakeWandb
from helpers.report_store import EIGHT, make_cell
from helpers.tasks import make_task
from helpers.wandb_files import Segment
from PIL import Image

from nsvd_exp.cli.main import main
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.improvement import average_improvement
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.experiment.run import run_cell
from nsvd_exp.experiment.session import Session
from nsvd_exp.progress import Observer, Observers, Progress
from nsvd_exp.report.__main__ import main as report_main
from nsvd_exp.storage.results import SCORES, Result, read_records
from nsvd_exp.tracking.cell import CellTracker
from nsvd_exp.tracking.dashboard import dashboard
from nsvd_exp.tracking.report import log_report, save_dashboard
from nsvd_exp.tracking.session import WandbSession

KEY = "0123456789" * 4


@pytest.fixture(autouse=True)
def wandb_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No account, no file outside of `tmp_path`, and nothing left over from another test."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("DATA_DIR", "CACHE_DIR", "CONFIG_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "wandb_home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    yield
    wandb.teardown()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWandb]:
    """A W&B server, and a key for it."""
    with FakeWandb.running() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server
        wandb.teardown()


def folders(arguments: list[str]) -> list[Path]:
    """The folders of run files, oldest first."""
    wandb.teardown()  # only then is every file written to its end
    return sorted(
        (results_dir(arguments) / "wandb").glob("*run-*"), key=lambda p: p.stat().st_ctime_ns
    )


def stored(arguments: list[str], method: str) -> Result:
    (result,) = (r for r in cells_of(arguments) if r["method"] == method)
    return result


def track(*arguments: str, mode: str = "offline") -> int:
    """The exit status of a grid."""
    try:
        return main(["-m", *arguments, "report=false", f"tracking.mode={mode}"])
    except SystemExit as error:
        return int(error.code or 0)


def test_a_run_file_holds_all_that_is_known_of_its_cell(settings: Settings) -> None:
    arguments = [*settings(), "ratio=0.4", "k1=0.7"]
    given = ["method=dense,asvd_i,nsvd_i", "tracking.group=mine", "tracking.progress=true"]
    assert track(*arguments, *given) == 0
    dense_run, parent, run = map(Segment, folders(arguments))
    result, reference = stored(arguments, "nsvd_i"), stored(arguments, "asvd_i")
    summary, config = run.summary, run.config

    assert run.run.run_id == result["key"][:16]
    assert run.exit_code == 0
    assert run.run.run_group == "mine"
    assert list(run.run.tags) == ["llama-0", "nsvd_i", "ratio=0.4", "k1=0.7"]
    assert (config["key"], summary["key"]) == (result["key"], result["key"])
    assert config["resolved"] == result["config"]
    assert [config[name] for name in ("model", "method", "ratio", "k1")] == [
        result[name] for name in ("model", "method", "ratio", "k1")
    ]

    ours, theirs = (
        {name: n["perplexity"] for name, n in r["datasets"].items()} for r in (result, reference)
    )
    assert len(ours) == 3
    assert {n: summary[f"perplexity/{n}"] for n in ours} == ours
    assert {n: run.history(f"perplexity/{n}")[0] for n in ours} == ours
    dense = {name: n["perplexity"] for name, n in stored(arguments, "dense")["datasets"].items()}
    for of in (summary, {k: v for line in run.lines for k, v in line.items()}):
        assert {n: of[f"times_dense/{n}"] for n in ours} == {n: ours[n] / dense[n] for n in ours}
    assert {n: summary[f"dense_perplexity/{n}"] for n in ours} == dense
    assert not [name for name in dense_run.summary if "dense" in name]
    assert summary["average_improvement"] == average_improvement(
        ours, theirs, list(ours), ["wikitext2"]
    )
    for group in ("achieved_ratio", "seconds", "peak_memory"):
        known = {k: v for k, v in result[group].items() if v is not None}
        assert {name: summary[f"{group}/{name}"] for name in known} == known
    assert summary["seconds/total"] == pytest.approx(sum(result["seconds"].values()))

    assert run.history("layer/name") == [row["name"] for row in result["layers"]]
    for name in ("activation_loss", "weight_loss", "discarded_energy"):
        assert run.history(f"layer/{name}") == [row[name] for row in result["layers"]]
    for stage in ("decompose", "wikitext2", "ptb", "c4"):
        assert run.history(f"progress/{stage}")[-1] == 1
    assert parent.history("progress/calibrate")[-1] == 1  # the second cell finds the statistics


def test_scores_at_tasks_go_into_the_run_of_their_cell(settings: Settings, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    for name in ("quiz", "riddle"):
        make_task(tmp_path / "tasks", name)
    arguments = [*settings(), "ratio=0.5", "dataset=[ptb]", f"tasks_dir={tmp_path / 'tasks'}"]
    asked = ["measure=perplexity,zeroshot", "method=dense,svd", "'tasks=[quiz,riddle]'"]
    assert track(*arguments, *(text.strip("'") for text in asked)) == 0
    runs = [Segment(folder) for folder in folders(arguments)]
    assert len(runs) == 4
    by_measure = {run.run.run_id: run for run in runs if "accuracy/quiz" in run.summary}
    dense, own = sorted(read_records(results_dir(arguments), SCORES), key=lambda r: r["method"])
    assert set(by_measure) == {dense["key"][:16], own["key"][:16]}
    assert {run.run.run_id for run in runs} == set(by_measure)  # the same as for perplexity
    run = by_measure[own["key"][:16]]
    values = {name: score["accuracy"] for name, score in own["tasks"].items()}
    assert {name: run.summary[f"accuracy/{name}"] for name in values} == values
    assert {name: run.history(f"accuracy/{name}")[0] for name in values} == values
    assert run.summary["accuracy/mean"] == pytest.approx(sum(values.values()) / 2)
    assert run.summary["accuracy_stderr/quiz"] == own["tasks"]["quiz"]["stderr"]
    theirs = {name: score["accuracy"] for name, score in dense["tasks"].items()}
    less = {name: values[name] - theirs[name] for name in values}
    assert {name: run.summary[f"accuracy_over_dense/{name}"] for name in values} == less
    assert not [name for name in by_measure[dense["key"][:16]].summary if "over_dense" in name]
    assert (run.exit_code, run.summary["status"]) == (0, "done")


def test_a_cell_that_is_there_has_no_run_and_a_wider_one_goes_on_with_its_own(
    settings: Settings,
) -> None:
    arguments = [*settings(), "method=svd"]
    for _ in range(2):
        assert track(*arguments, "dataset=[ptb]") == 0
        assert len(folders(arguments)) == 1
    assert track(*arguments, "dataset=[ptb,c4]") == 0
    first, second = map(Segment, folders(arguments))
    assert first.run.run_id == second.run.run_id
    assert second.history("perplexity/ptb")[:-1] == []  # in its summary alone
    assert not [n for line in [*first.lines, *second.lines] for n in line if "progress" in n]
    assert not [name for name in second.summary if "dense" in name]  # it is not stored
    perplexities = {name for name in second.summary if name.startswith("perplexity/")}
    assert perplexities == {"perplexity/ptb", "perplexity/c4"}


class Disturbs(Observer):
    """Does something when the evaluation of PTB begins."""

    def __init__(self, disturb: Callable[[], object]) -> None:
        self.disturb = disturb

    def progress(self, stage: str) -> Progress | None:
        if stage == "ptb":
            self.disturb()
        return None


def tracked(
    session: WandbSession, *arguments: str, mode: str = "offline", beside: Observer | None = None
) -> Result:
    """The result of a cell that this session follows, and another observer beside it."""
    plan = plan_cell(compose(*arguments, f"tracking.mode={mode}"))
    with closing(Observers(CellTracker(plan, None, session), beside or Observer())) as observers:
        return run_cell(plan, Session(), observers)


@pytest.mark.parametrize("problem", [RuntimeError("no more"), KeyboardInterrupt()])
def test_a_cell_that_broke_off_goes_on_with_its_run(
    settings: Settings, problem: BaseException
) -> None:
    def breaks_off() -> None:
        raise problem

    cell = [*settings(), "method=svd"]
    with suppress(KeyboardInterrupt):
        assert tracked(WandbSession(), *cell, beside=Disturbs(breaks_off))["status"] == "failed"
    assert stored(cell, "svd")["datasets"].keys() == {"wikitext2"}
    assert tracked(WandbSession(), *cell)["status"] == "done"
    first, second = map(Segment, folders(cell))
    assert first.run.run_id == second.run.run_id
    assert (first.exit_code, second.exit_code) == (1, 0)
    assert first.history("perplexity/wikitext2")[0] == first.summary["perplexity/wikitext2"]
    if isinstance(problem, RuntimeError):
        assert first.summary["error"] == "no more"
    assert len([k for k in second.summary if k.startswith("perplexity/")]) == 3


class Recorder:
    """A run, or a session, that keeps what it is told."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.logged: list[dict[str, Any]] = []

    def claim(self) -> bool:
        return True

    def open(self, mode: str, directory: Path, **options: Any) -> Recorder:
        self.options = options
        return self

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)


@pytest.mark.parametrize(
    ("group", "preset", "expected"),
    [(None, None, "tiny"), (None, "table1", "table1"), ("mine", "table1", "mine")],
)
def test_runs_are_grouped_by_experiment(group: str, preset: str, expected: str) -> None:
    plan = plan_cell(compose(f"tracking.group={group or 'null'}"))
    recorder = Recorder()
    CellTracker(plan, preset, recorder).started()  # type: ignore[arg-type]
    assert recorder.options["group"] == expected


def test_what_a_method_does_not_have_is_no_tag_and_a_tag_is_never_too_long(
    model_folder: Callable[..., Path], data_dir: Path
) -> None:
    named = [f"model.name={model_folder()}", f"model.title={'x' * 100}", f"data_dir={data_dir}"]
    plan = plan_cell(compose("model=hf", *named, "method=dense", "dataset=[ptb]"))
    recorder = Recorder()
    CellTracker(plan, None, recorder).started()  # type: ignore[arg-type]
    assert recorder.options["tags"] == ["x" * 64, "dense"]
    assert recorder.options["config"]["ratio"] is None


def test_progress_is_a_point_each_second_and_the_last() -> None:
    recorder, now = Recorder(), 0.0
    plan = plan_cell(compose("tracking.progress=true"))
    tracker = CellTracker(plan, None, recorder, clock=lambda: now)  # type: ignore[arg-type]
    tracker.started()
    update = tracker.progress("ptb")
    assert update is not None
    for done in range(1, 101):
        now = 0.03 * done
        update(done, 100)
    points = [round(100 * values["progress/ptb"]) for values in recorder.logged]
    assert points == [1, 35, 69, 100]


def test_an_agents_run_takes_the_cell_that_it_asked_for_done_or_not(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = tmp_path / "config.yaml"
    asked.write_text(yaml.safe_dump({"method": {"value": "svd"}}))
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(asked))
    arguments = [*settings(), "method=svd"]
    for run_id in ("first", "second"):
        monkeypatch.setenv("WANDB_RUN_ID", run_id)
        assert main([*arguments, "tracking.mode=offline"]) == 0  # beside the dense model
        wandb.teardown()
    runs = [Segment(folder) for folder in folders(arguments)]
    result = stored(arguments, "svd")
    assert [run.run.run_id for run in runs] == ["first", "second"]
    for run in runs:
        assert run.run.sweep_id == "sweep"
        assert run.config["key"] == result["key"]
        for name, number in result["datasets"].items():
            assert run.summary[f"perplexity/{name}"] == number["perplexity"]
        assert run.history("layer/weight_loss") == [row["weight_loss"] for row in result["layers"]]


def test_an_agents_run_holds_one_cell_of_a_grid(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.setenv("WANDB_RUN_ID", "the_one")
    arguments = [*settings(), "dataset=[ptb]", "method=svd", "ratio=0.2,0.3,0.4"]
    assert track(*arguments) == 0
    assert len(folders(arguments)) == 1
    said = capsys.readouterr().err
    assert said.count("the others have no run") == 1


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "sweeps").glob("wandb_*.yaml")), ids=lambda p: p.stem
)
def test_a_sweep_file_names_settings_that_compose_and_turns_tracking_on(path: Path) -> None:
    sweep = yaml.safe_load(path.read_text())
    command = sweep["command"]
    assert command[1:4] == ["python", "-m", "nsvd_exp"]
    extra = command[command.index("${args_no_hyphens}") + 1 :]
    for name, parameter in sweep["parameters"].items():
        values = parameter.get("values") or [parameter.get(k) for k in ("value", "min", "max")]
        for value in filter(None, values):
            assert compose(f"{name}={value}", *extra).tracking.mode == "online"


def test_online_a_cell_goes_on_with_its_run_by_its_id(
    server: FakeWandb, settings: Settings
) -> None:
    arguments = [*settings(), "method=svd"]
    assert track(*arguments, "dataset=[ptb]", mode="online") == 0
    run_id = stored(arguments, "svd")["key"][:16]
    before = dict(server.history[run_id])
    assert track(*arguments, "dataset=[ptb,c4]", mode="online") == 0
    assert set(server.history) == {run_id}
    after = server.history[run_id]
    assert {line: after[line] for line in before} == before
    names = {name for line in after.values() for name in line}
    assert {"perplexity/ptb", "perplexity/c4", "layer/weight_loss"} <= names


def test_a_sync_puts_the_segments_of_an_offline_run_together(
    settings: Settings, server: FakeWandb, tmp_path: Path
) -> None:
    arguments = [*settings(), "method=svd"]
    for datasets in ("[ptb]", "[ptb,c4]"):
        assert track(*arguments, f"dataset={datasets}") == 0
    lines = [line for folder in folders(arguments) for line in Segment(folder).lines]
    assert not server.history
    sync = [sys.executable, "-m", "wandb", "sync", results_dir(arguments) / "wandb"]
    subprocess.run(sync, check=True, capture_output=True, cwd=tmp_path)  # it logs to where it is
    (synced,) = server.history.values()

    synced_lines = [synced[number] for number in sorted(synced)]
    assert [
        {name: value for name, value in line.items() if not name.startswith("_")}
        for line in synced_lines
    ] == lines


def test_a_server_that_fails_is_asked_once_and_costs_no_cell(
    server: FakeWandb, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    server.broken = True
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "1")
    arguments = [*settings(), "dataset=[ptb]", "method=svd,asvd_0"]
    assert track(*arguments, mode="online") == 0
    assert [r["status"] for r in cells_of(arguments)] == ["done"] * 2
    assert [f.name.partition("-run-")[0] for f in folders(arguments)] == ["offline"] * 2
    said = capsys.readouterr().err
    assert said.count("offline from here on") == 1
    assert said.count(f"wandb sync {results_dir(arguments) / 'wandb'}") == 1


def test_a_server_that_goes_away_leaves_the_run_on_disk(
    server: FakeWandb, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    breaks = Disturbs(lambda: setattr(server, "broken", True))
    arguments = [*settings(), "dataset=[ptb]"]
    session = WandbSession(seconds_to_upload=1)
    for method in ("svd", "asvd_0"):
        cell = [*arguments, f"method={method}"]
        assert tracked(session, *cell, mode="online", beside=breaks)["status"] == "done"
    online, offline = folders(arguments)
    assert f"wandb sync --include-online {online}" in caplog.text
    assert offline.name.startswith("offline-run-")
    assert Segment(online).history("perplexity/ptb")


def test_a_run_that_refuses_costs_no_cell_and_is_left_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    arguments = [*settings(), "dataset=[ptb]", "method=svd,asvd_0"]
    monkeypatch.setattr(wandb.Run, "log", refuse)
    assert track(*arguments) == 0
    assert [r["status"] for r in cells_of(arguments)] == ["done"] * 2
    said = capsys.readouterr().err
    assert said.count("disk full; to upload what is there: wandb sync") == 1


def test_where_no_run_can_be_kept_there_is_none(
    settings: Settings, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "file").write_text("")
    arguments = [*settings(), "dataset=[ptb]", "method=svd,asvd_0"]
    assert track(*arguments, f"tracking.dir={tmp_path / 'file'}") == 0
    assert len(cells_of(arguments)) == 2
    said = capsys.readouterr().err
    assert said.count("no run can be kept") == 1


def test_without_a_key_nothing_prompts_on_a_terminal(tmp_path: Path) -> None:
    code = (
        "import sys, logging; from pathlib import Path\n"
        "from nsvd_exp.tracking.session import WandbSession\n"
        "logging.basicConfig(level='INFO'); assert sys.stdin.isatty() and sys.stderr.isatty()\n"
        f"run = WandbSession().open('online', Path({str(tmp_path)!r}), project='p')\n"
        "print('offline:', run.offline); run.finish()"
    )
    terminal, end = pty.openpty()
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdin=end, stdout=end, stderr=end)
    os.close(end)
    shown = b""
    try:
        while part := os.read(terminal, 4096):
            shown += part
    except OSError:  # the other end is closed
        pass
    assert process.wait(timeout=60) == 0, shown.decode()
    assert b"offline: True" in shown
    assert b"no API key: type `wandb login`" in shown
    assert shown.count(b"wandb sync") == 1


def test_tracking_is_in_no_key_and_in_no_result(settings: Settings) -> None:
    plain = plan_cell(compose(*settings()))
    tracked = plan_cell(compose(*settings(), "tracking.mode=offline", "tracking.group=mine"))
    assert plain.file.key == tracked.file.key
    assert plain.config.tracking.mode == "disabled"
    assert "tracking" not in run_cell(tracked, Session())["config"]


@pytest.mark.parametrize("override", ["mode=onlin", "project=a/b", "project=''", "group='a:b'"])
def test_a_value_that_wandb_would_refuse_is_an_error(override: str) -> None:
    with pytest.raises(NsvdError, match=rf"tracking\.{override.partition('=')[0]}"):
        compose(f"tracking.{override}")


def test_a_report_is_one_run_with_tables_images_and_the_page(tmp_path: Path) -> None:
    rows = pandas.MultiIndex.from_tuples(
        [(0.1, "NSVD-I"), (0.2, "NSVD-I")], names=["ratio", "method"]
    )
    columns = pandas.MultiIndex.from_tuples([("PTB", "ppl"), ("PTB", "impr.")])
    frame = pandas.DataFrame([[10.5, "–"], [None, "1.0%"]], index=rows, columns=columns)
    figure, page = tmp_path / "figure1.png", tmp_path / "index.html"
    Image.new("RGB", (8, 8)).save(figure)
    page.write_text("<h1>Tables</h1>")
    assert log_report({"table1": frame}, [figure], page, "offline", "nsvd_exp", None, tmp_path)
    wandb.teardown()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    read = Segment(folder)
    assert read.exit_code == 0
    assert read.history("tables/table1/_type") == ["table-file"]
    assert read.history("figures/figure1/_type") == ["image-file"]
    (table,) = folder.rglob("*.table.json")
    assert json.loads(table.read_text()) == {
        "columns": ["ratio", "method", "PTB ppl", "PTB impr."],
        "data": [[0.1, "NSVD-I", 10.5, "–"], [0.2, "NSVD-I", None, "1.0%"]],
    }
    (report,) = (r.artifact for r in read.records if r.artifact.type == "report")
    assert {c.path for c in report.manifest.contents} == {"index.html", "figure1.png"}


def test_the_report_that_is_made_is_logged(tmp_path: Path, capsys: Capture) -> None:
    results = tmp_path / "results"
    for ratio in (0.3, 0.5):
        make_cell(results, method="asvd_i", ratio=ratio)
    assert report_main([str(results), "--wandb", "offline", "--tables", "1,3"]) == 0
    wandb.teardown()
    (folder,) = (results / "wandb").glob("offline-run-*")
    read = Segment(folder)
    assert {name for line in read.lines for name in line if name.endswith("_type")} == {
        *(f"tables/{name}/_type" for name in ("results", "table1", "table3")),
        "figures/ratio-tiny/_type",
    }
    (table,) = folder.rglob("*table1*.table.json")
    content = json.loads(table.read_text())
    perplexities = [row[content["columns"].index("perplexity")] for row in content["data"]]
    assert EIGHT["ptb"] in perplexities
    (report,) = (r.artifact for r in read.records if r.artifact.type == "report")
    assert {c.path for c in report.manifest.contents} == {"index.html", "ratio-tiny.png"}
    assert report_main([str(results), "--wandb", "offline", "--format", "md"]) == 2
    assert "--wandb logs the page too" in capsys.readouterr().err


def test_the_dashboard_plots_perplexity_against_ratio_and_k1_by_method() -> None:
    pytest.importorskip("wandb_workspaces")
    view = dashboard("nsvd_exp", "me", ["table1"], ["figure1"])
    model = json.loads(view._to_model().model_dump_json(by_alias=True, exclude_none=True))
    assert (model["entity"], model["project"]) == ("me", "nsvd_exp")
    held = model["spec"]["section"]["panelBankConfig"]["sections"]
    sections = {section["name"]: section["panels"] for section in held}
    perplexity, times, k1, *others = sections
    assert (perplexity, k1) == ("Perplexity against ratio", "k1 sensitivity")
    assert [p["config"]["metrics"] for p in sections[times]][:1] == [["times_dense/alpaca_eval"]]
    assert others == ["Accuracy at tasks, against ratio", "Layers", "Tables", "Figures"]
    curves = {"average_improvement", "perplexity/wikitext2", "perplexity/alpaca_eval_jp"}
    for section, x in ((perplexity, "ratio"), (k1, "k1")):
        plots = {p["config"]["metrics"][0]: p["config"] for p in sections[section]}
        assert curves <= plots.keys()
        for plot in plots.values():
            assert (plot["xAxis"], plot["groupBy"]) == (x, "method.value")
    assert "tables/table1" in json.dumps(sections["Tables"])
    assert sections["Figures"][0]["config"]["mediaKeys"] == ["figures/figure1"]


def test_without_wandb_workspaces_the_way_to_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    save_dashboard("nsvd_exp", "me", [], [])
    assert "pip install -e '.[dashboard]'" in caplog.text
