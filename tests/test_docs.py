"""The documentation: its links and names exist, it mentions every setting, its examples run."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from pathlib import Path

import pytest
import yaml
from helpers.command_line import REPOSITORY

from nsvd_exp.cli.arguments import setting_names
from nsvd_exp.config.schema import Config
from nsvd_exp.config.sections import DatasetConfig

PAGES = [
    *("README.md", "CONTRIBUTING.md", "results/README.md", "benchmarks/README.md"),
    *sorted(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")),
]
# Folders whose paths a page may name; their files have to be there.
NAMED = ("nsvd_exp", "conf", "docs", "tests", "sweeps", "benchmarks", "hydra_plugins")
# Parts of names that stand for the reader's own.
PLACEHOLDERS = ("NAME", "mine", "*")
METHODS = sorted(path.stem for path in (REPOSITORY / "conf/method").glob("*.yaml"))
GROUPS = [
    "hydra/launcher",
    *sorted(p.name for p in (REPOSITORY / "conf").iterdir() if p.is_dir() and p.name != "hydra"),
]


def text_of(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: str) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", without_code(text_of(page)), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere_and_every_path_that_is_named_exists(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text_of(page))):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        found = (REPOSITORY / page).parent / path if path else REPOSITORY / page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(str(found.resolve().relative_to(REPOSITORY))), target
    for name in re.findall(rf"`((?:{'|'.join(NAMED)})/[\w./*-]*)`", text_of(page)):
        if not any(part in name for part in PLACEHOLDERS):
            assert (REPOSITORY / name).exists(), name


def test_every_page_is_in_the_index_and_the_readme_is_short() -> None:
    index = text_of("docs/README.md")
    for page in PAGES:
        if page.startswith("docs/") and page != "docs/README.md":
            assert f"({Path(page).name})" in index, page
    assert len(text_of("README.md").splitlines()) <= 160


def test_every_setting_is_described() -> None:
    """Those of a method are the fields of its class, which `docs/methods.md` describes."""
    settings = text_of("docs/settings.md")
    known = setting_names(Config)
    groups = {name.rpartition(".")[0] for name in known}
    described_elsewhere = ("method.", "calibration.dataset.")
    names = [n for n in known if n not in groups and not n.startswith(described_elsewhere)]
    names += [f"dataset.NAME.{field.name}" for field in dataclasses.fields(DatasetConfig)]
    assert [name for name in names if f"`{name}`" not in settings] == []


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_is_described(group: str) -> None:
    settings = text_of("docs/settings.md")
    choices = [path.stem for path in (REPOSITORY / "conf" / group).glob("*.yaml")]
    assert choices
    assert [name for name in choices if f"`{name}`" not in settings] == []


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_described_with_its_class_and_fields(name: str) -> None:
    methods = text_of("docs/methods.md")
    content = yaml.safe_load(text_of(f"conf/method/{name}.yaml"))
    assert f"`{name}`" in methods
    target = content.pop("_target_")
    if target is not None:  # dense has none
        assert f"`{target.rpartition('.')[2]}(" in methods
    fields = set(content) - {"name", "title", "order", "plot"}
    assert [field for field in fields if f"{field}=" not in methods] == []


@pytest.mark.parametrize(
    "page", ["README.md", "docs/library.md", "docs/methods.md", "docs/checkpoints.md"]
)
def test_the_python_examples_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the page, as one program, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^( *)```python\n(.*?)^\1```$", text_of(page), re.DOTALL | re.MULTILINE)
    assert blocks
    # A module that is known: a dataclass looks its own up.
    names: dict[str, object] = {"__name__": __name__}
    for number, (_, block) in enumerate(blocks, start=1):
        code = compile(textwrap.dedent(block), f"{page}, example {number}", "exec")
        exec(code, names)
