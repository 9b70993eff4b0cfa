"""The words and numbers that every format shares: entries, titles, footnote marks, the legend."""

from __future__ import annotations

from collections.abc import Sequence

from nsvd_exp.experiment.wording import format_perplexity
from nsvd_exp.report.model.entries import Average, Entry
from nsvd_exp.report.model.tables import Block, Line

STATES = {"missing": "–", "failed": "failed", "partial": "unfinished"}
NOT_RUN = "not run: only the paper's numbers"


def percent(fraction: float) -> str:
    """A signed percentage with one decimal: `+14.7%` is better, `−5.9%` worse."""
    return f"{100 * fraction:+.1f}%".replace("-", "−")


def entry_text(entry: Entry) -> str:
    """Perplexity, deviation over seeds and improvement; the state where there is no perplexity."""
    if entry.perplexity is None:
        return STATES[entry.state]
    text = format_perplexity(entry.perplexity)
    if entry.deviation is not None:
        text += f" ± {format_perplexity(entry.deviation)}"
    return text if entry.improvement is None else f"{text} ({percent(entry.improvement)})"


def printed_text(entry: Entry) -> str:
    """The paper's number at this place, and how far ours is from it where they are comparable."""
    if entry.printed is None:
        return ""
    text = format_perplexity(entry.printed)
    if entry.printed_improvement is not None:
        text += f" ({percent(entry.printed_improvement)})"
    return text if entry.difference is None else f"{text}; ours {percent(entry.difference)}"


def average_text(average: Average) -> str:
    """The average improvement with its interval; empty where there is none."""
    if average.value is None:
        return ""
    text = percent(average.value)
    if average.interval is None:
        return text
    low, high = map(percent, average.interval)
    return f"{text} [{low}, {high}]"


def row_title(line: Line) -> str:
    """The method, with its k1 where it has one."""
    return line.title if line.row.k1 is None else f"{line.title}, k1 = {line.row.k1:g}"


def ratio_title(ratio: float | None) -> str:
    """A ratio as a percentage: `30%`."""
    return "" if ratio is None else f"{100 * ratio:g}%"


def note_marks(blocks: Sequence[Block]) -> dict[str, str]:
    """The mark (a, b, c, ...) of each footnote of a table."""
    notes = dict.fromkeys(note for block in blocks for note in block.notes)
    return {note: chr(ord("a") + index) for index, note in enumerate(notes)}


def block_title(block: Block) -> str:
    """The model and, where it is not the main one, the setting."""
    if block.setting is None:
        return f"{block.model} ({NOT_RUN})"
    if not block.differences:
        return block.model
    return f"{block.model}, with {', '.join(block.differences)}"


def paper_title(block: Block) -> str:
    """What the paper's numbers are called; it names their model if that is another one."""
    other = block.paper_model not in (None, block.model)
    return f"paper, {block.paper_model}" if other else "paper"


def legend(blocks: Sequence[Block]) -> list[str]:
    """What the numbers of a table mean, as sentences."""
    sentences = [
        "Perplexity, lower is better; bold: the lowest of its column at a ratio. In parentheses "
        "the improvement over ASVD-I (positive is better). Avg. impro.: its mean over the sets "
        "other than WikiText-2, with the 95% interval of a paired bootstrap over windows."
    ]
    if any(e.deviation is not None for b in blocks for ln in b.lines for e in ln.entries.values()):
        sentences.append("Where cells of several calibration seeds are stored: mean ± deviation.")
    if any(block.paper_model not in (None, block.model) for block in blocks):
        sentences.append(
            "The paper's rows are of another model and other text: to be looked at, not subtracted."
        )
    for block in blocks:
        if block.setting and block.unmeasured:
            sentences.append(f"{block.model}: not measured: {', '.join(block.unmeasured)}.")
        if block.setting and block.unstarted:
            ratios = ", ".join(map(ratio_title, block.unstarted))
            sentences.append(f"{block.model}: no cell at the paper's ratios {ratios}.")
    return list(dict.fromkeys(sentences))
