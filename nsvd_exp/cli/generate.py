"""`python -m nsvd_exp.generate`: a text continued by a compressed model, and by the dense one."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from nsvd_exp.cli import terminal
from nsvd_exp.cli.places import CELL_HELP, add_place, place_of, run_command
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.continuations import PROMPTS, continuations_file
from nsvd_exp.experiment.plan import CellPlan
from nsvd_exp.storage.results import Result

if TYPE_CHECKING:
    from nsvd_exp.experiment.subject import Hold, Subject
    from nsvd_exp.pipeline.generate import Choice, Continuation


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 2 if nothing could be continued."""
    return run_command(_parser(), _generate, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m nsvd_exp.generate",
        description="Continue a text by the dense model and by the compressed one; the most "
        "probable token is taken each time, unless --sample is given.",
    )
    parser.add_argument("subject", metavar="FOLDER_OR_CELL", help=f"a saved model, or {CELL_HELP}")
    parser.add_argument("prompt", metavar="PROMPT", help="the text to continue")
    parser.add_argument("--tokens", type=int, default=64, help="at most; default: 64")
    parser.add_argument("--sample", action="store_true", help="draw tokens at random")
    parser.add_argument("--temperature", type=float, help="of the draws; default: 1")
    parser.add_argument("--seed", type=int, help="of the draws; default: 0")
    add_place(parser)
    return parser


def _generate(options: argparse.Namespace) -> None:
    if not options.sample and (options.temperature, options.seed) != (None, None):
        raise NsvdError("--temperature and --seed belong to --sample: without it nothing is drawn")
    from nsvd_exp.experiment.session import Session
    from nsvd_exp.experiment.subject import subject
    from nsvd_exp.pipeline.generate import Choice

    choice = Choice()
    if options.sample:
        temperature = 1.0 if options.temperature is None else options.temperature
        choice = Choice(temperature, options.seed or 0)
    found = subject(options.subject, place_of(options), Session())
    texts = {}
    for heading, hold in _models(found).items():
        texts[heading] = asdict(_continued(hold, options.prompt, options.tokens, choice))
    _show(options.prompt, texts)
    if found.dense is None and found.folder is not None:
        terminal.say("the folder does not say which dense model it is of: --model FOLDER adds it")


def _models(found: Subject) -> dict[str, Hold]:
    """The models to ask, by heading: the dense one first, where it is known."""
    if found.result is not None and found.dense is None:
        return {f"dense ({found.title})": found.compressed}
    dense = {} if found.dense is None else {f"dense ({found.title})": found.dense}
    return {**dense, f"compressed ({found.name})": found.compressed}


def _continued(hold: Hold, prompt: str, tokens: int, choice: Choice) -> Continuation:
    from nsvd_exp.pipeline.generate import continued

    with hold() as loaded:
        return continued(loaded.model, loaded.tokenizer, prompt, tokens, choice)


def show_stored(plans: Sequence[CellPlan]) -> None:
    """Show what the store has of these cells' continuations, prompt by prompt."""
    records = [record for plan in plans if (record := continuations_file(plan).read())]
    for index, prompt in enumerate(PROMPTS):
        _show(prompt, {_heading(record): record["texts"][index] for record in records})


def _heading(record: Result) -> str:
    if record["ratio"] is None:
        return f"dense ({record['model']})"
    return f"compressed ({record['subject']})"


def _show(prompt: str, texts: Mapping[str, Mapping[str, Any]]) -> None:
    """A prompt, and what each model made of it: the fields of a `Continuation`, by heading."""
    console = Console(highlight=False)
    console.print(Text(f"{_readable(prompt)}\n", style="bold"))
    for heading, made in texts.items():
        end = ", the model ended the text" if made["has_ended"] else ""
        console.print(Text(f"{heading}, {made['tokens']} tokens{end}", style="dim"))
        console.print(Text(f"{_readable(made['text']).strip() or '(nothing)'}\n"))


def _readable(text: str) -> str:
    """Without what would steer the terminal: a model may write any character."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
