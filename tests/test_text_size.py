"""Bytes and words of the text that was predicted, and what is taken over them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from helpers.cells import run
from helpers.shared import SHARED
from helpers.texts import make_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from nsvd_exp.bundled import MODEL_DIR, TEXT_DIR
from nsvd_exp.data.tokens import text_ends, windows
from nsvd_exp.pipeline.evaluate import bits_per_byte, word_perplexity


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each byte of UTF-8, as byte-level BPE has for rare characters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize(
    ("text", "length", "size", "words"),
    [
        ("one two six", 11, 10, 3),  # all but the "o"
        ("one two six", 4, 6, 2),  # "ne ", "wo ": a word counts where its last character is
        ("one two six", 3, 6, 1),  # "ne", "tw", " s": of three words, "one" alone ends there
        ("a\n \tb", 5, 4, 1),
        ("猫", 3, 3, 1),  # known with its last byte, which is predicted
        ("猫坐", 2, 3, 1),  # 猫 ends with the first token of the second window, 坐 with the last
        ("猫坐", 3, 6, 1),
        ("猫 坐。b", 5, 10, 1),  # 猫 and the space in the first window, 坐 and 。 in the second
        ("é" * 4, 8, 8, 1),
    ],
)
def test_bytes_and_words_are_those_of_the_predicted_text(
    text: str, length: int, size: int, words: int
) -> None:
    tokens = windows(byte_tokenizer(), text, length)
    assert (tokens.bytes, tokens.words) == (size, words)


@pytest.mark.parametrize(
    ("offsets", "ends"),
    [
        ([(0, 3), (3, 7)], [3, 7]),
        ([(0, 3), (4, 7)], [3, 7]),  # a space that is dropped is the next token's
        ([(0, 0), (0, 3), (3, 5), (0, 0)], [0, 3, 5, 5]),  # special tokens that were added
        ([(0, 1), (0, 1), (0, 1)], [0, 0, 1]),  # the bytes of one character
        ([(0, 1), (0, 2), (1, 2)], [0, 1, 2]),  # a token of parts of two characters
        ([], []),
    ],
)
def test_every_character_belongs_to_one_token(
    offsets: list[tuple[int, int]], ends: list[int]
) -> None:
    assert text_ends(offsets) == ends


def test_a_dropped_space_counts_with_the_word_after_it() -> None:
    tokens = windows(make_tokenizer(), "w2 w3  w4 w5 w6", 2)
    assert (tokens.bytes, tokens.words) == (len(" w3") + len(" w5"), 2)


def test_a_tokenizer_without_offsets_has_neither() -> None:
    class Slow:
        bos_token_id = 1

        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return {"input_ids": [int(word[1:]) for word in text.split()]}

    tokens = windows(Slow(), "w2 w3 w4 w5", 2)
    assert (tokens.bytes, tokens.words) == (None, None)


TOKENIZERS = [MODEL_DIR, *(SHARED / "models" / name for name in ("real9m", "stories260k"))]
TEXTS = [
    "The café’s naïve ﬁnale — 3½ × 10⁶ tests.\n\n  Indented, and\ttabs.  ",
    "猫は静かに座っています。\n东京很大，人口很多。 English 混在。",
    "🙂👩‍👩‍👧 emoji, zero\u200bwidth, \u00a0no-break",
]


@pytest.mark.parametrize("text", TEXTS, ids=["latin", "cjk", "emoji"])
@pytest.mark.parametrize("folder", TOKENIZERS, ids=lambda folder: folder.name)
def test_windows_and_their_first_tokens_make_up_the_whole_text(folder: Path, text: str) -> None:
    """Cut in any way, nothing is counted twice and nothing is lost."""
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids, ends = encoded["input_ids"], text_ends(encoded["offset_mapping"])
    pieces = [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    assert "".join(pieces) == text[: ends[-1]]
    assert text[ends[-1] :].strip() == ""
    for length in (2, 3, 5, len(ids)):
        count = len(ids) // length
        kept = pieces[: count * length]
        predicted = "".join(p for i, p in enumerate(kept) if i % length)
        found = windows(tokenizer, text, length)
        assert found.bytes == len(predicted.encode())
        assert found.words is not None
        assert found.words <= len(text.split())
    whole = windows(tokenizer, text, len(ids))
    assert whole.words == len(text.split()) - (pieces[0] in text.split())


@pytest.mark.parametrize("name", ["cmrc_cn", "alpaca_eval_jp"])
def test_chinese_and_japanese_text_has_about_three_bytes_a_character(name: str) -> None:
    path = TEXT_DIR / name / "test.jsonl"
    rows = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    text = "\n\n".join(rows)
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL_DIR)
    found = windows(tokenizer, text, 64)
    assert found.bytes is not None
    assert found.bytes == pytest.approx(len(text.encode()) * 63 / 64, rel=0.02)


def test_bits_per_byte_and_word_perplexity_by_hand() -> None:
    assert bits_per_byte(8 * math.log(2), 4) == pytest.approx(2)
    assert word_perplexity(3 * math.log(5), 3) == pytest.approx(5)
    assert bits_per_byte(1.0, None) is bits_per_byte(1.0, 0) is None
    assert word_perplexity(1.0, None) is word_perplexity(1.0, 0) is None
    assert word_perplexity(1000.0, 1) is None, "beyond any float"


def test_a_measurement_stores_them(settings: Callable[..., list[str]], data_dir: Path) -> None:
    measured = run(*settings(), "dataset=[ptb]", "method=dense")["datasets"]["ptb"]
    rows = (data_dir / "ptb" / "test.jsonl").read_text().splitlines()
    text = "\n\n".join(json.loads(row)["text"] for row in rows).split()[: 6 * 32]
    predicted = [word for i, word in enumerate(text) if i % 32]
    assert measured["words"] == len(predicted) == measured["tokens"]
    assert measured["word_perplexity"] == pytest.approx(measured["perplexity"])
    assert measured["bits_per_byte"] * measured["bytes"] * math.log(2) == pytest.approx(
        measured["nll"]
    )
