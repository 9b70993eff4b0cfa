"""Two tasks over the bundled English text, in the form of EleutherAI's lm-evaluation-harness.

- `bundled_ending`: which of four endings completes the last sentence of a passage. The wrong ones
  complete other passages of the same corpus, so that guessing is right once in four times.
- `bundled_word`: the next word of a passage, which has stood in the passage before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

# Corpora whose documents are passages of several sentences, in the alphabet that \w+ takes apart.
PASSAGES = ("wikitext2", "c4", "alpaca_eval", "mctest")
DOCUMENTS = 50  # of each corpus, at most
CONTEXT = 240  # characters, at most: it leaves room for the ending in 256 tokens
CHOICES = 4
FEWEST_WORDS = 6  # of a sentence that is cut in two
FEWEST_LETTERS = 4  # of a word that is asked for
FEWEST_BEFORE = 80  # characters before it

COMMON = """\
# Made by make_bundled/tasks.py.
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {name}.jsonl
test_split: test
doc_to_text: context
"""
DEFINITIONS = {
    "bundled_ending": """\
output_type: multiple_choice
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1
""",
    "bundled_word": """\
output_type: generate_until
doc_to_target: word
generation_kwargs:
  until: ["\\n"]
  max_gen_toks: 8
  do_sample: false
filter_list:
  - name: first_word
    filter:
      - function: regex
        regex_pattern: '^\\s*(\\w+)'
      - function: take_first
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1
""",
}


def write_tasks(folder: Path, rows: Mapping[str, Sequence[str]], seed: int) -> None:
    """Write a YAML file and a JSON Lines file for each task.

    Args:
        rows: of each file of the bundled text, such as `c4/test`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {name: passages(name, rows[f"{name}/test"]) for name in PASSAGES}
    documents = {"bundled_ending": endings(texts, seed), "bundled_word": words(texts)}
    for name, made in documents.items():
        lines = (json.dumps(document, ensure_ascii=False) + "\n" for document in made)
        definition = COMMON.format(name=name) + DEFINITIONS[name]
        for file, text in ((f"{name}.jsonl", "".join(lines)), (f"{name}.yaml", definition)):
            (folder / file).write_text(text, encoding="utf-8", newline="\n")


def passages(corpus: str, rows: Sequence[str]) -> list[str]:
    """The running text of a corpus's rows, each passage once."""
    texts = [row for row in rows if not row.startswith("= ")]
    if corpus == "mctest":  # a row is a story and a question; a story has several questions
        texts = [row.partition("\n")[0] for row in texts]
    return list(dict.fromkeys(texts))


def endings(texts: Mapping[str, Sequence[str]], seed: int) -> Iterator[dict[str, Any]]:
    """Passages whose last sentence is cut in two, with four ways to go on."""
    for corpus, own in texts.items():
        rng = Random(f"{seed}/endings/{corpus}")
        halves = [found for text in own if (found := cut_in_two(text))][:DOCUMENTS]
        known = list(dict.fromkeys(ending for _, ending in halves))
        if len(known) < CHOICES:
            continue
        for context, ending in halves:
            wrong = rng.sample([other for other in known if other != ending], CHOICES - 1)
            answer = rng.randrange(CHOICES)
            choices = [*wrong[:answer], ending, *wrong[answer:]]
            yield {
                "corpus": corpus,
                "context": clipped(context),
                "choices": choices,
                "answer": answer,
            }


def cut_in_two(text: str) -> tuple[str, str] | None:
    """A passage to the middle of its last sentence, and the rest; None where that is too short."""
    starts = [gap.end() for gap in re.finditer(r"(?<=[.!?])\s+(?=\S)", text)]
    if len(starts) < 2:
        return None
    spaces = [start for start in range(starts[-1], len(text)) if text[start] == " "]
    if len(spaces) + 1 < FEWEST_WORDS:
        return None
    middle = spaces[len(spaces) // 2]
    return text[:middle], text[middle + 1 :]


def words(texts: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    """Passages that end before a word that they hold already."""
    for corpus, own in texts.items():
        found = [asked for text in own if (asked := last_repeated_word(text))]
        for context, word in found[:DOCUMENTS]:
            yield {"corpus": corpus, "context": context, "word": word}


def last_repeated_word(text: str) -> tuple[str, str] | None:
    """What stands before the last word that is there a second time, and that word."""
    for match in reversed(list(re.finditer(rf"(?<= )[A-Za-z]{{{FEWEST_LETTERS},}}\b", text))):
        before, word = clipped(text[: match.start() - 1]), match[0]
        if match.start() > FEWEST_BEFORE and re.search(rf"\b{word}\b", before):
            return before, word
    return None


def clipped(context: str) -> str:
    """The end of a text, from the beginning of a word."""
    return context if len(context) <= CONTEXT else context[-CONTEXT:].partition(" ")[2]
