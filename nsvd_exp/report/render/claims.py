"""The paper's claims beside what the stored results say of them, as one page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from nsvd_exp.report.model.checked import Checked
from nsvd_exp.report.model.claims import CLAIMS, Claim
from nsvd_exp.report.model.entries import RUINED
from nsvd_exp.report.model.evidence import Evidence, Finding, Outcome
from nsvd_exp.report.model.intervals import FEWEST_WINDOWS
from nsvd_exp.report.model.subjects import Subject
from nsvd_exp.report.render import claims_beyond, claims_k1
from nsvd_exp.report.render.claims_text import evidence_text
from nsvd_exp.report.render.markup import MARKDOWN, Cell, Table, markdown_table
from nsvd_exp.report.render.text import STATES, joined, ratio_title

SECTIONS = {
    "1": "NSVD-I on other text than the calibration's",
    "2": "NSVD-I on the calibration's own text",
    "3": "ASVD-I and ASVD-II",
    "4": "How k1 matters",
    "5": "NID-I",
    "6": "Plain SVD and ASVD-0",
}
READING = (
    "Every verdict is decided by a paired 95% interval: both methods are measured on the same "
    "windows, and the interval allows for neighbouring windows being alike. A claim **holds** "
    "where the interval leaves out the contrary, **does not hold** where it leaves out the claim, "
    "and **cannot be told** where it includes both, or where a set has fewer than "
    f"{FEWEST_WINDOWS} windows, which is too few for an interval. What is not stored is **not "
    "measured**. A claim of several comparisons holds where all of them do, and does not hold "
    "where one of them does not.",
    "Percentages are improvements of perplexity over the other method: +10% is a tenth lower, −10% "
    "a tenth higher, *equal* a difference below 0.005%; ×12 in place of a percentage is twelve "
    "times as high. Averages are over the sets that calibration took nothing from. Beside the mean "
    "of the percentages, as the paper takes it, stands the mean difference of log perplexity in "
    "nats per token (negative is better), which one ruined set cannot dominate; where the two "
    "disagree, the verdict says so.",
    f"×12.2 → ×10.4 are both perplexities in times the dense model's. A model beyond ×{RUINED} is "
    "ruined: that one of two such models is better says little of use, and verdicts between them "
    "are marked *ruined*.",
    "In the tables bold is what speaks against a claim, and a question mark follows what cannot be "
    "told. An interval says how much a number depends on the text that was evaluated; it says "
    "nothing of other calibration samples, nor of other models. Of twenty intervals one misses "
    "by chance.",
)
COUNTED = {
    Outcome.HOLDS: "as claimed",
    Outcome.FAILS: "contrary",
    Outcome.OPEN: "cannot be told",
    Outcome.UNMEASURED: "not measured",
}
PRINTED = (
    "The last column of the table above holds the same checks of the numbers that the paper prints "
    "for {}. They have no intervals: the sign of the printed number decides, and nobody here has "
    "measured it."
)


def page(models: Sequence[Checked], papers: Subject, command: str) -> str:
    """The whole page.

    Args:
        command: that makes it.
    """
    subjects = [*(one.subject for one in models), papers]
    parts = [
        "# The paper's claims, checked",
        "What the paper NSVD ([arXiv 2503.17101](https://arxiv.org/abs/2503.17101)) claims, or its "
        "tables show, beside what stored results say of it. All numbers and verdicts are computed "
        "from these when this command runs:",
        f"```bash\n{command}\n```",
        "## What was run",
        markdown_table(_what_was_run(models)),
        *_left_out(models),
        "## The claims",
        markdown_table(_overview(subjects)),
        "## How to read it",
        *READING,
        PRINTED.format(MARKDOWN.escape(papers.title)),
    ]
    for number, title in SECTIONS.items():
        parts += _section(number, title, subjects)
    return "\n\n".join([*parts, *claims_beyond.section(models)]) + "\n"


def _what_was_run(models: Sequence[Checked]) -> Table:
    columns = ["Model", "Results", "Parameters", "Removed", "Cells", "Sets", "Windows x tokens"]
    table = Table([*columns, "Precision", "Calibration (samples x tokens)", "Measured last"], 10)
    for one in models:
        group, size = one.group, one.parameters
        texts = [
            one.subject.title,
            one.source,
            STATES["missing"] if size is None else f"{size / 1e6:.3g} million",
            ", ".join(map(ratio_title, one.subject.ratios)),
            str(len(one.cells)),
            ", ".join(group.datasets.values()),
            ", ".join(one.windows),
            ", ".join(one.dtypes),
            "; ".join(one.calibrations) or STATES["missing"],
            group.setting.newest[:10],
        ]
        table.rows.append([Cell(MARKDOWN.escape(text)) for text in texts])
    return table


def _left_out(models: Sequence[Checked]) -> list[str]:
    return [
        f"{MARKDOWN.escape(one.subject.title)}: results under {one.others} other "
        f"{'setting' if one.others == 1 else 'settings'} are stored too, and not used here."
        for one in models
        if one.others
    ]


def _title(subject: Subject) -> str:
    return MARKDOWN.escape(f"{subject.title}, as printed" if subject.is_printed else subject.title)


def _overview(subjects: Sequence[Subject]) -> Table:
    table = Table(["", "Claim", *map(_title, subjects)], 2 + len(subjects))
    for claim in CLAIMS:
        said = [_in_short(claim.findings(subject)) for subject in subjects]
        table.rows.append([Cell(text) for text in (claim.number, claim.text, *said)])
    return table


def _in_short(findings: Sequence[Finding]) -> str:
    """`holds at 10% and 20%; does not hold at 30%`."""
    by_words: dict[str, list[str]] = {}
    for outcome in Outcome:
        for finding in findings:
            if finding.verdict is outcome:
                by_words.setdefault(_words(finding), []).append(ratio_title(finding.ratio))
    if list(by_words) in ([], [Outcome.UNMEASURED.value]):
        return Outcome.UNMEASURED.value
    return "; ".join(f"{words} at {joined(ratios)}" for words, ratios in by_words.items())


def _words(finding: Finding) -> str:
    """The verdict with what qualifies it."""
    verdict, other = finding.verdict, finding.in_nats
    said = f"**{verdict.value}**" if verdict is not Outcome.UNMEASURED else verdict.value
    said += f" (in nats: {other.value})" if other is not verdict else ""
    return f"{said} *(ruined)*" if finding.is_ruined else said


def _section(number: str, title: str, subjects: Sequence[Subject]) -> list[str]:
    claims = [claim for claim in CLAIMS if claim.number[0] == number]
    rules = [f"- **{claim.number}** {claim.text} Holds if {claim.rule}." for claim in claims]
    parts = [f"## {number}. {title}", "\n".join(rules)]
    for subject in subjects:
        parts.append(f"### {number}. {_title(subject)}")
        parts += _evidence(claims, subject)
        if number == "4":
            parts += claims_k1.section(subject)
    return parts


def _evidence(claims: Sequence[Claim], subject: Subject) -> list[str]:
    """The table of a section, one column per ratio, and what is not measured."""
    found = {claim: {f.ratio: f for f in claim.findings(subject)} for claim in claims}
    measured = [
        ratio
        for ratio in subject.ratios
        if any(one.compared for of in found.values() for one in of[ratio].evidence)
    ]
    if not measured:
        return ["Not measured."]
    table = Table(["Removed", *map(ratio_title, measured)], 1)
    for claim, by_ratio in found.items():
        shown = [by_ratio[ratio] for ratio in measured]
        verdicts = [Cell(_counted(finding)) for finding in shown]
        table.rows.append([Cell(f"**{claim.number}**"), *verdicts])
        by_about = [{one.about: one for one in finding.evidence} for finding in shown]
        for about in dict.fromkeys(about for known in by_about for about in known):
            cells = [_cell(known.get(about), subject) for known in by_about]
            table.rows.append([Cell(MARKDOWN.escape(about)), *map(Cell, cells)])
    others = [ratio_title(ratio) for ratio in subject.ratios if ratio not in measured]
    return [markdown_table(table), *([f"Not measured at {joined(others)}."] if others else [])]


def _counted(finding: Finding) -> str:
    """The verdict; of several comparisons also of how many."""
    outcomes = [one.verdict for one in finding.evidence]
    if len(set(outcomes)) < 2:
        return _words(finding)
    counts = {words: outcomes.count(outcome) for outcome, words in COUNTED.items()}
    said = ", ".join(f"{count} {words}" for words, count in counts.items() if count)
    return f"{_words(finding)}: {said}"


def _cell(evidence: Evidence | None, subject: Subject) -> str:
    """The numbers of a comparison, marked by what they say."""
    if evidence is None or evidence.compared is None:
        return STATES["missing"]
    text = evidence_text(evidence, subject.is_printed)
    if evidence.verdict is Outcome.FAILS:
        return f"**{text}**"
    return f"{text} ?" if evidence.verdict is Outcome.OPEN else text
