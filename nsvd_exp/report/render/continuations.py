"""What the models write, as Markdown and on the page. A text may hold anything."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import markupsafe

from nsvd_exp.config.checks import shown
from nsvd_exp.report.model.continuations import Continuation, ContinuationGroup
from nsvd_exp.report.render.markup import MARKDOWN
from nsvd_exp.report.render.text import ratio_title

NAME = "continuations"
TITLE = "What the models write"
LEGEND = (
    "Continuations of fixed prompts, where each model always takes the token that it finds most "
    "probable. A sample to look at, and no measurement."
)
LONGEST_PROMPT = 300
# What `MARKDOWN` leaves as it is: between words of ours it is no markup.
MORE_MARKDOWN = re.compile(r"[\[\]&#~$]")
LIST_OR_HEADING = re.compile(r"^(\d*)([-+=.)])", re.MULTILINE)


def line_title(line: Continuation) -> str:
    """`NSVD-I, k1 = 0.95, 30% removed`, and where the text has ended by itself."""
    k1, removed = line.row.k1, ratio_title(line.row.ratio)
    count = line.stored["tokens"]
    parts = [
        line.method.title,
        "" if k1 is None else f"k1 = {k1:g}",
        removed and f"{removed} removed",
        line.origin,
        f"ended after {count} token{'s' * (count != 1)}" if line.stored["has_ended"] else "",
    ]
    return ", ".join(filter(None, parts))


def prompt_title(prompt: str) -> str:
    """A prompt in one line."""
    return shown(prompt, LONGEST_PROMPT)


def plain_text(line: Continuation) -> str:
    """The text behind `…`, with `�` for control characters and halves of characters.

    Of those only the tab and the end of a line stay.
    """
    text = re.sub(r"\r\n?", "\n", line.stored["text"])
    return "…" + "".join(
        "�" if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cs") else c for c in text
    )


def html_text(line: Continuation) -> markupsafe.Markup:
    """`plain_text` for an element that keeps white space; the page's own lines are squeezed."""
    return markupsafe.Markup(str(markupsafe.escape(plain_text(line))).replace("\n", "&#10;"))


def markdown(groups: Sequence[ContinuationGroup]) -> str:
    """A Markdown document: a quoted block for each text."""
    parts = [f"# {TITLE}", LEGEND]
    for group in groups:
        parts.append(f"## {_escaped(group.model)}")
        for prompt, lines in group.prompts.items():
            parts.append(f"### {_escaped(prompt_title(prompt))}")
            for line in lines:
                parts += [f"**{_escaped(line_title(line))}**", _quoted(plain_text(line))]
    return "\n\n".join(parts) + "\n"


def _quoted(text: str) -> str:
    """A block that keeps the lines of a text; several empty ones are one."""
    lines = [_escaped(" ".join(line.split())) for line in text.split("\n")]
    paragraphs = re.split(r"\n{2,}", "\n".join(lines).strip("\n"))
    return "\n>\n".join("> " + part.replace("\n", "\\\n> ") for part in paragraphs)


def _escaped(text: str) -> str:
    inline = MORE_MARKDOWN.sub(r"\\\g<0>", MARKDOWN.escape(text))
    return LIST_OR_HEADING.sub(r"\1\\\2", inline)
