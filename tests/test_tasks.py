"""Tasks before the work: which file defines one, what its key is made of, what is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from helpers.command_line import Capture, Settings, run_main
from helpers.configuration import compose
from helpers.tasks import make_score, make_scores, make_task

from make_bundled import corpora
from make_bundled.tasks import CHOICES, PASSAGES, write_tasks
from nsvd_exp.bundled import TASKS_DIR, TEXT_DIR
from nsvd_exp.data.tasks import locate_task, require_harness
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.experiment.zeroshot import Accuracy, difference, mean, plan_zeroshot
from nsvd_exp.storage.kept import TASK_SCORES
from nsvd_exp.storage.results import SCORES, read_records
from nsvd_exp.storage.scores import problem_of

BUNDLED = ("bundled_ending", "bundled_word")
ABSENT = "no_such_harness"


def documents(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (TASKS_DIR / f"{name}.jsonl").open(encoding="utf-8")]


def bundled_rows(name: str) -> list[str]:
    lines = (TEXT_DIR / name / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


# The bundled tasks


def test_the_bundled_tasks_follow_from_the_bundled_text(tmp_path: Path) -> None:
    rows = {f"{name}/test": bundled_rows(name) for name in PASSAGES}
    write_tasks(tmp_path, rows, corpora.SEED)
    made, stored = ({p.name: p.read_bytes() for p in f.iterdir()} for f in (tmp_path, TASKS_DIR))
    assert made == stored


def test_of_four_endings_one_belongs_to_the_passage_and_a_word_stands_in_it_already() -> None:
    endings = documents("bundled_ending")
    answers = [document["answer"] for document in endings]
    assert all(20 < answers.count(n) < 70 for n in range(CHOICES))  # at no place more often
    for document in endings:
        choices = document["choices"]
        assert isinstance(choices, list)
        assert len(set(choices)) == CHOICES
    rows = [row for name in PASSAGES for row in bundled_rows(name)]
    for document in documents("bundled_word"):
        context, word = str(document["context"]), str(document["word"])
        assert re.search(rf"\b{word}\b", context)
        assert any(f"{context} {word}" in row for row in rows)


# Where a task is, and its key


def test_a_users_task_stands_before_others_and_the_first_folder_counts(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    own = make_task(first / "deep", "bundled_word")
    make_task(second, "bundled_word")
    make_task(second, "theirs")
    folders = [str(first), str(second)]
    assert locate_task("bundled_word", folders).path == own
    assert locate_task("theirs", folders).path.parent == second
    assert locate_task("bundled_ending", folders, ABSENT).path.parent == TASKS_DIR


def test_the_key_of_a_task_is_what_it_says_and_not_where_it_stands(tmp_path: Path) -> None:
    code = "def process(rows):\n    return rows\n"
    path = make_task(tmp_path / "a", include="base.yaml")
    (path.parent / "base.yaml").write_text("process_docs: !function utils.process\n")
    (path.parent / "utils.py").write_text(code)
    shutil.copytree(path.parent, tmp_path / "b")

    def identity(folder: str) -> dict[str, object]:
        return locate_task("mine", [str(tmp_path / folder)], ABSENT).identity

    before = identity("a")
    assert identity("b") == before
    assert str(tmp_path) not in json.dumps(before)
    assert before["version"] == "1"
    changes: list[tuple[str, Callable[[str], str]]] = [
        ("mine.yaml", lambda text: text.replace("version: 1", "version: 2")),
        ("mine.yaml", lambda text: text.replace("context", "choices")),
        ("mine.jsonl", lambda text: text.replace("w1", "w2")),
        ("base.yaml", lambda text: text + "description: Go on.\n"),
        ("utils.py", lambda text: text + "# faster\n"),
    ]
    seen = [before]
    for name, change in changes:
        file = tmp_path / "b" / name
        kept = file.read_text()
        file.write_text(change(kept))
        seen.append(identity("b"))
        file.write_text(kept)
    assert len({json.dumps(one) for one in seen}) == len(seen)


def test_scores_have_the_key_of_their_cell_and_each_its_own(
    settings: Settings, tmp_path: Path
) -> None:
    make_task(tmp_path / "tasks")
    given = [*settings(), "tasks=[mine]", f"tasks_dir={tmp_path / 'tasks'}", "measure=zeroshot"]
    plan = plan_zeroshot(compose(*given))
    cell = plan_cell(compose(*given, "measure=perplexity")).file
    assert (plan.file.key, plan.file.folder) == (cell.key, cell.folder)
    assert (plan.file.path.name, cell.path.name) == ("zeroshot.json", "result.json")
    (task,) = plan.tasks
    changed = ["zeroshot.limit=3", "zeroshot.fewshot=1", "evaluation.dtype=bfloat16"]
    changed.append("model.max_length=32")
    keys = {plan_zeroshot(compose(*given, change)).tasks[0].key for change in changed}
    assert len(keys | {task.key}) == 5
    same = ["zeroshot.batch=3", "evaluation.max_windows=1", "dataset=[ptb]", "memory=resident"]
    assert {plan_zeroshot(compose(*given, change)).tasks[0].key for change in same} == {task.key}


def test_planning_imports_neither_torch_nor_the_harness() -> None:
    program = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from helpers.configuration import compose\n"
        "from nsvd_exp.experiment.zeroshot import plan_zeroshot\n"
        "plan = plan_zeroshot(compose('model=tiny', 'measure=zeroshot'))\n"
        "print([task.name for task in plan.tasks], {'torch', 'lm_eval'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{list(BUNDLED)} set()"


# What is refused, before any work


def test_a_name_that_is_no_task_gets_the_nearest_ones(tmp_path: Path) -> None:
    make_task(tmp_path, "my_quiz")
    with pytest.raises(NsvdError, match=r"'my_quis'\. Did you mean my_quiz\?.*pip install -e"):
        locate_task("my_quis", [str(tmp_path)], ABSENT)
    with pytest.raises(NsvdError, match="Did you mean bundled_word"):
        locate_task("bundle_word", [], ABSENT)
    with pytest.raises(NsvdError, match=r"lm-eval.*pip install -e '\.\[zeroshot\]'"):
        require_harness(ABSENT)


def test_the_harness_brings_its_tasks() -> None:
    pytest.importorskip("lm_eval")
    source = locate_task("arc_easy", [])
    assert (source.config["dataset_path"], source.version) == ("allenai/ai2_arc", "1.0")
    template = locate_task("mmlu_abstract_algebra", [])  # it includes a file without a suffix
    assert template.config["doc_to_text"]
    with pytest.raises(NsvdError, match="Did you mean arc_easy"):
        locate_task("arc_eazy", [])
    with pytest.raises(NsvdError, match=r"'mmlu' is a group of tasks .*name its tasks"):
        locate_task("mmlu", [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p.write_text("task: mine\ntag: [\n"), r"mine\.yaml, line 3, is not YAML"),
        (lambda p: p.write_text("task: mine\n--- 3\n"), r"mine\.yaml, line 2, is not YAML"),
        (lambda p: (p.parent / "mine.jsonl").unlink(), r"mine\.yaml names the data file mine"),
        (lambda p: make_task(p.parent, include="base.yaml"), r"base\.yaml cannot be read"),
        (lambda p: make_task(p.parent, include="mine.yaml"), r"mine\.yaml includes itself"),
        (lambda p: make_task(p.parent, unsafe_code=True), "task mine runs code that the model"),
        (lambda p: make_task(p.parent, doc_to_image="x"), "is for models that take images"),
        (lambda p: make_task(p.parent, num_fewshot=0), "task mine is fixed at 0 examples"),
    ],
)  # fmt: skip
def test_a_broken_or_unsuitable_task_is_one_message(
    change: Callable[[Path], object], said: str, settings: Settings, tmp_path: Path
) -> None:
    change(make_task(tmp_path / "tasks"))
    given = ["measure=zeroshot", "tasks=[mine]", f"tasks_dir={tmp_path / 'tasks'}"]
    with pytest.raises(NsvdError, match=said):
        plan_zeroshot(compose(*settings(), *given, "zeroshot.fewshot=2"))


def test_every_job_of_a_grid_is_checked_before_the_first_one(
    settings: Settings, tmp_path: Path, capsys: Capture
) -> None:
    make_task(tmp_path / "tasks")
    given = [*settings(), "measure=zeroshot", "method=dense,svd"]
    known = ["tasks=[mine]", f"tasks_dir={tmp_path / 'tasks'}"]
    for wrong, said in (
        (["tasks=[mines]", f"tasks_dir={tmp_path / 'tasks'}"], "Did you mean mine?"),
        (["tasks=[mine]", f"tasks_dir={tmp_path / 'none'}"], "there is no folder"),
        ([*known, "memory=streamed"], "needs the whole model in memory: memory=resident"),
        (["tasks=[]"], "tasks=[]: expected at least one task"),
    ):
        code, out, err = run_main(capsys, "-m", *given, *wrong)
        assert (code, out) == (2, "")
        assert said in err
    assert list(read_records(tmp_path / "results", SCORES)) == []


# Scores that are stored


def test_a_difference_is_paired_and_a_mean_counts_each_task_the_same() -> None:
    ours, theirs = make_score("mine", "0011010111"), make_score("mine", "1011110111")
    found = difference(ours, theirs)
    assert found.value == pytest.approx(-0.2)
    d = [-1, 0, 0, 0, -1, 0, 0, 0, 0, 0]
    squares = sum((x + 0.2) ** 2 for x in d)
    assert found.stderr == pytest.approx((squares / 90) ** 0.5)
    assert difference(ours, ours) == (0, 0)
    for other in ({"correct": None}, {"documents_sha256": "another"}):
        assert difference(ours, theirs | other).stderr is None
    whole = mean([Accuracy(0.5, 0.03), Accuracy(0.7, 0.04)])
    assert whole == pytest.approx((0.6, 0.025))
    assert mean([Accuracy(0.5, 0.03), Accuracy(0.7, None)]) == (0.6, None)
    assert mean([]) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"accuracy": 0.7}, "not that of its documents"),
        ({"accuracy": 1.5}, "no fraction"),
        ({"accuracy": float("nan")}, "no fraction"),
        ({"stderr": float("inf")}, "standard error"),
        ({"documents": 9}, "correct does not hold"),
        ({"correct": "01x1"}, "correct does not hold"),
        ({"identity": {"task": "mine"}}, "the key is not that"),
    ],
)
def test_a_score_that_does_not_fit_together_does_not_count(
    change: dict[str, object], said: str
) -> None:
    score = make_score("mine", "0101")
    assert problem_of(score) is None
    assert said in str(problem_of(score | change))


def test_a_file_that_was_changed_is_one_message(tmp_path: Path) -> None:
    make_scores(tmp_path, "svd", {"mine": "0111"})
    (path,) = tmp_path.glob("cells/*/zeroshot.json")
    path.write_text(path.read_text().replace('"accuracy": 0.75', '"accuracy": 0.85'))
    with pytest.raises(NsvdError, match=r"zeroshot\.json is damaged \(its checksum is wrong\)"):
        list(read_records(tmp_path, SCORES))


def test_a_score_made_otherwise_moves_aside_and_is_found_again() -> None:
    result: dict[str, object] = {"tasks": {}, "earlier": []}
    whole, short = make_score("mine", "0101"), make_score("mine", "01", limit=2)
    for score in (whole, short, whole, short):
        TASK_SCORES.put(result, score)
    assert result == {"tasks": {"mine": short}, "earlier": [whole]}
    assert TASK_SCORES.find(result, "mine", whole["key"]) == whole
    assert TASK_SCORES.find(result, "mine", "no such key") is None


def test_a_yaml_file_says_what_the_harness_reads() -> None:
    for name in BUNDLED:
        source = locate_task(name, [], ABSENT)
        assert source.config == yaml.safe_load(source.path.read_text())
        assert Path(source.dataset_kwargs["data_files"]["test"]).is_file()
