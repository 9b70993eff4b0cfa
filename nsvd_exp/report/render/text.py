"""The words and numbers that every format shares: numbers, entries, titles, footnote marks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from nsvd_exp.experiment.wording import format_perplexity
from nsvd_exp.report.model.entries import Average, Entry
from nsvd_exp.report.model.intervals import Interval
from nsvd_exp.report.model.paper import LAYOUTS
from nsvd_exp.report.model.results import Group, Line
from nsvd_exp.report.model.tables import Block

STATES = {"missing": "–", "failed": "failed", "partial": "unfinished"}
AVERAGE_HEADINGS = ("Avg. impro.", "Nats over dense")
REFERENCE = "reference"  # in place of an improvement over itself
TIMES_FROM = 10  # a perplexity of that many times ASVD-I's is said so, and not in per cent


def percent(fraction: float) -> str:
    """A signed percentage: `+14.7%` is better, `−5.9%` worse; below 1% with a second decimal."""
    decimals = 1 if abs(fraction) >= 0.0095 else 2
    return f"{100 * fraction:+.{decimals}f}%".replace("-", "−")


def change(improvement: float) -> str:
    """An improvement over ASVD-I; `×12` where the perplexity is twelve times ASVD-I's."""
    times = 1 - improvement
    return percent(improvement) if times < TIMES_FROM else f"×{_times_number(times)}"


def times(value: float) -> str:
    """A perplexity in times the dense model's: `×1.35`."""
    return f"×{_times_number(value)}"


def _times_number(value: float) -> str:
    return f"{value:#.3g}".rstrip(".") if value < 1000 else format_perplexity(value)


def nats(value: float) -> str:
    """A difference of log perplexity, nats per token: `+0.302`."""
    return f"{value:+.3f}".replace("-", "−")


def entry_text(entry: Entry) -> str:
    """Perplexity and deviation over seeds; the state where there is no perplexity."""
    if entry.perplexity is None:
        return STATES[entry.state]
    text = format_perplexity(entry.perplexity)
    return text if entry.deviation is None else f"{text} ± {format_perplexity(entry.deviation)}"


def times_text(entry: Entry) -> str:
    """The perplexity in times the dense model's: `(×6.20)`; empty for none."""
    return "" if entry.times_dense is None else f"({times(entry.times_dense)})"


def improvement_text(entry: Entry) -> str:
    """The improvement over ASVD-I: `(−5.9%)`; empty for none."""
    return "" if entry.improvement is None else f"({change(entry.improvement)})"


def printed(value: float) -> str:
    """One of the paper's perplexities as the paper prints it: with two decimals."""
    return f"{value:.2f}"


def printed_texts(entry: Entry) -> tuple[str, str]:
    """The paper's number at this place; its improvement, and how far ours is from the number."""
    if entry.printed is None:
        return "", ""
    gained, difference = entry.printed_improvement, entry.difference
    said = [
        "" if gained is None else f"({change(gained)})",
        "" if difference is None else f"ours {percent(difference)}",
    ]
    return printed(entry.printed), "; ".join(filter(None, said))


def average_texts(average: Average) -> list[tuple[str, str]]:
    """The average improvement and the mean in nats, each with its interval; empty for none."""
    return [
        (REFERENCE, "")
        if average.is_reference
        else with_interval(average.improvement, average.improvement_interval, change),
        with_interval(average.nats, average.nats_interval, nats),
    ]


def with_interval(
    value: float | None, bounds: Interval | None, write: Callable[[float], str]
) -> tuple[str, str]:
    """A number, and its interval in brackets; each empty for none."""
    if value is None:
        return "", ""
    return write(value), "" if bounds is None else f"[{', '.join(map(write, bounds))}]"


def row_title(line: Line) -> str:
    """The method, with its k1 where it has one."""
    return line.title if line.row.k1 is None else f"{line.title}, k1 = {line.row.k1:g}"


def clipped(text: str, longest: int) -> str:
    """`text` in `longest` characters at most: `A very long n…`."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def ratio_title(ratio: float | None) -> str:
    """A ratio as a percentage: `30%`."""
    return "" if ratio is None else f"{100 * ratio:g}%"


def group_title(group: Group) -> str:
    """The model and, where it is not the main one, the setting."""
    return ", ".join([group.model, *group.differences])


def layout_title(number: int) -> str:
    """The title of a table of our results: it is none of the paper's, only laid out like it."""
    return f"Laid out like Table {number} of the paper: {LAYOUTS[number]}"


def paper_title(block: Block) -> str:
    """What the paper's numbers are called; it names their model if that is another one."""
    return "paper" if block.is_papers_model else f"paper, {block.paper_model}"


def note_marks(blocks: Sequence[Block]) -> dict[str, str]:
    """The mark (a, b, c, ...) of each footnote of a table."""
    notes = dict.fromkeys(note for block in blocks for note in block.notes)
    return {note: chr(ord("a") + index) for index, note in enumerate(notes)}


def joined(words: Sequence[str], last: str = "and") -> str:
    """`a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def left_out(groups: Iterable[Group]) -> str:
    """Which datasets the averages leave out, in words."""
    found = dict.fromkeys(joined(group.calibrated_on) for group in groups if group.calibrated_on)
    titles = joined(list(found), "or")
    return f"the sets that calibration took samples from ({titles})" if titles else ""
