"""What a user types or writes is text wherever it is shown, and what is wrong is one message."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from helpers.command_line import Capture, run_main
from helpers.configuration import compose

from nsvd_exp.cli.arguments import config_dirs, with_lists_of_folders
from nsvd_exp.cli.cache import main as cache_main
from nsvd_exp.config.checks import LONGEST_TITLE, shown
from nsvd_exp.models.batches import is_out_of_memory
from nsvd_exp.report.render.console import speak_ascii_where_needed


@pytest.mark.parametrize("title", ["[/x]", "{0}", r"$\frac{1}$", "%s", "[red]a[/red]", "中文 é"])
def test_what_can_be_shown_stays_as_it_is(title: str) -> None:
    assert shown(title) == title


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("  two\twords\n", "two words"),
        ("a\x1b[31mb\x00c", "a [31mb c"),
        ("half \ud83d of one", "half of one"),
        ("right-to-left \u202e here", "right-to-left here"),
        ("x" * 400, "x" * (LONGEST_TITLE - 1) + "…"),
        ("x" * LONGEST_TITLE, "x" * LONGEST_TITLE),
    ],
)
def test_a_title_is_one_line_of_characters_that_can_be_shown(title: str, expected: str) -> None:
    assert shown(title) == expected
    config = compose()
    for block in (config.model, *config.dataset.values()):
        block.title = title
        block.__post_init__()
        assert block.title == expected


def test_a_terminal_without_utf_8_gets_ascii() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    speak_ascii_where_needed(stream)
    stream.write("0.60 ± 0.19 – x Wᵀ … 中")
    stream.flush()
    assert raw.getvalue() == b"0.60 +- 0.19 - x W^T ... ?"
    raw = io.BytesIO()
    utf_8 = io.TextIOWrapper(raw, encoding="utf-8")
    speak_ascii_where_needed(utf_8)
    utf_8.write("± \udcff 中")
    utf_8.flush()
    assert raw.getvalue().decode() == "± ? 中"


BROKEN = "_target_: nsvd_exp.methods.SVD\nname: mine\n  title: [x\n"
SOUND = "_target_: nsvd_exp.methods.SVD\nname: mine\n"


@pytest.mark.parametrize("is_grid", [False, True])
def test_a_yaml_error_of_the_user_is_one_message_with_file_and_line(
    tmp_path: Path, capsys: Capture, is_grid: bool
) -> None:
    path = tmp_path / "conf" / "method" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(BROKEN)
    given = ["--config-dir", f"{tmp_path}/conf", "method=mine", f"results_dir={tmp_path}/r"]
    code, out, err = run_main(capsys, *(["-m"] if is_grid else []), *given)
    assert (code, out) == (2, "")
    assert err == f"error: {path}, line 3 is not YAML: mapping values are not allowed here\n"


@pytest.mark.parametrize("form", ["--config-dir {}", "--config-dir={}", "-cd {}"])
def test_what_a_folder_of_ones_own_adds_is_known_too(
    tmp_path: Path, capsys: Capture, form: str
) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text(SOUND)
    given = form.format(tmp_path).split()
    assert config_dirs(given) == [str(tmp_path)]
    for wrong, hint in (("method=mien", "Did you mean mine?"), ("method=", "expected a name")):
        code, _, err = run_main(capsys, *given, wrong)
        assert code == 2
        assert hint in err
        assert ", kfac, mine, " in err


@pytest.mark.parametrize("name", ["results_dir", "cache_dir"])
@pytest.mark.parametrize("is_grid", [False, True])
def test_an_empty_folder_is_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, name: str, is_grid: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run_main(capsys, *(["-m"] if is_grid else []), f"{name}=")
    assert (code, out) == (2, "")
    assert err.endswith(f"error: {name}=: expected a folder\n")
    assert list(tmp_path.iterdir()) == []


def test_a_working_directory_that_is_gone_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    code, out, err = run_main(capsys, "method=svd")
    assert (code, out) == (2, "")
    assert err.startswith("error: the folder that this was started in is gone")


def test_an_argument_that_is_no_text_is_one_message(capsys: Capture) -> None:
    code, out, err = run_main(capsys, "model.title=\udcff")
    assert (code, out, err) == (2, "", "error: model.title=\\udcff is not UTF-8\n")


@pytest.mark.parametrize("days", ["-1", "nan", "inf"])
def test_a_cache_is_not_cleared_by_an_age_that_is_none(
    tmp_path: Path, capsys: Capture, days: str
) -> None:
    assert cache_main(["clear", f"--older-than={days}", f"--cache-dir={tmp_path}"]) == 2
    expected = f"error: --older-than={days}: expected a number of days >= 0\n"
    assert capsys.readouterr().err == expected


def test_an_address_space_that_is_used_up_is_out_of_memory() -> None:
    text = "unable to mmap 4096 bytes from file </model.safetensors>: Cannot allocate memory (12)"
    assert is_out_of_memory(RuntimeError(text))


def test_data_dir_that_is_given_several_times_is_a_list() -> None:
    given = ["data_dir=a b", "method=svd", "data_dir=[c,d]", "data_dir=~x"]
    assert with_lists_of_folders(given) == ["method=svd", 'data_dir=["a b",c,d,"~x"]']
    assert with_lists_of_folders(given[:2]) == given[:2]
