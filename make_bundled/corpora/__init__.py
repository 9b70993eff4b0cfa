"""Eight small synthetic corpora, each in the manner of the dataset whose name it bears.

A corpus module has one function, `document(rng)`, which returns the rows of one document.
This package seeds them, cuts them to size and keeps test documents out of training text.
"""

from collections.abc import Callable, Collection
from random import Random

from make_bundled.corpora import (
    alpaca_eval,
    alpaca_eval_jp,
    c4,
    cmrc_cn,
    mctest,
    ptb,
    snips,
    wikitext2,
)

DATASETS: dict[str, Callable[[Random], list[str]]] = {
    "wikitext2": wikitext2.document,
    "ptb": ptb.document,
    "c4": c4.document,
    "snips": snips.document,
    "alpaca_eval": alpaca_eval.document,
    "mctest": mctest.document,
    "cmrc_cn": cmrc_cn.document,
    "alpaca_eval_jp": alpaca_eval_jp.document,
}

# Characters of each test split: between 12 and 16 thousand tokens of the bundled tokenizer.
TEST_CHARS = {
    "wikitext2": 34_000,
    "ptb": 38_000,
    "c4": 33_000,
    "snips": 36_000,
    "alpaca_eval": 34_000,
    "mctest": 36_000,
    "cmrc_cn": 13_000,
    "alpaca_eval_jp": 16_000,
}
CALIBRATION_CHARS = 300_000  # of the training split of wikitext2
# A Chinese or Japanese character carries about as much as three English letters.
SHORT_SCRIPTS = ("cmrc_cn", "alpaca_eval_jp")
SEED = 20250


def is_heading(row: str) -> bool:
    """Whether a row is a title or section heading, which may well stand in two splits."""
    return row.startswith("= ") and row.endswith(" =")


def generate(
    name: str, split: str, seed: int, chars: int, exclude: Collection[str] = ()
) -> list[list[str]]:
    """Documents of a corpus, as lists of rows, of about `chars` characters in all.

    A document that holds a row of `exclude`, or a row of an earlier document, is dropped;
    headings do not count.
    """
    rng = Random(f"{seed}/{name}/{split}")
    documents: list[list[str]] = []
    seen: set[str] = set()
    written = 0
    while written < chars:
        rows = DATASETS[name](rng)
        bodies = [row for row in rows if not is_heading(row)]
        if any(row in exclude or row in seen for row in bodies):
            continue
        seen.update(bodies)
        documents.append(rows)
        written += sum(len(row) + 2 for row in rows)
    return documents


def evaluation_documents(name: str, seed: int = SEED, scale: float = 1.0) -> list[list[str]]:
    """The test split of a corpus; `scale` shrinks it for trials."""
    return generate(name, "test", seed, int(TEST_CHARS[name] * scale))


def train_documents(
    name: str, split: str, seed: int, chars: int, scale: float = 1.0
) -> list[list[str]]:
    """Training text of a corpus, from which every row of its test split has been kept out."""
    held_out = {row for rows in evaluation_documents(name, seed, scale) for row in rows}
    return generate(name, split, seed, int(chars * scale), exclude=held_out)


def flatten(documents: list[list[str]]) -> list[str]:
    """All rows of the documents, in order."""
    return [row for rows in documents for row in rows]
