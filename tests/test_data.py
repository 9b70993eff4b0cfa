"""Rows become one text, the text becomes windows and samples, as each protocol says."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import hashlib
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from helpers.configuration import EIGHT
from helpers.datasets import dataset
from helpers.hub import COMMIT, AddToHub, empty_hub_cache
from helpers.texts import make_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from nsvd_exp.config.sections import SAMPLERS, DatasetConfig
from nsvd_exp.data.sources import locate_dataset
from nsvd_exp.data.text import read_rows, special_tokens_in, text_of
from nsvd_exp.data.tokens import Tokens, calibration_samples, windows
from nsvd_exp.errors import NsvdError

Row = dict[str, Any]

STORY = {"idx": {"story": 0, "question": 1}, "story": "A cat sat.", "question": "one: Who sat?"}
OPTIONS = {"A": "a dog", "B": "a cat", "C": "a cow", "D": "a hen"}
PARAGRAPH = {"id": "TRAIN_1", "context": "猫坐着。", "question": "谁坐着？"}
INSTRUCTION = {"instruction": "Say hi.", "output": "Hi.", "dataset": "helpful", "generator": "x"}

# A row of each hub dataset, in the hub's shape, and the document it stands for.
HUB_ROWS: dict[str, tuple[Row, str]] = {
    "wikitext2": ({"text": " = Title = \n"}, " = Title = \n"),
    "ptb": ({"sentence": "no it was n't <unk> N"}, "no it was n't <unk> N"),
    "c4": ({"text": "A page.", "timestamp": "2019", "url": "http://x"}, "A page."),
    "snips": ({"text": "play a song", "category": "PlayMusic"}, "play a song"),
    "alpaca_eval": (INSTRUCTION, "Say hi.\n\nHi."),
    "alpaca_eval_jp": ({"instruction": "挨拶を。", "output": "どうも。"}, "挨拶を。\n\nどうも。"),
    "mctest": (
        STORY | {"answer_options": OPTIONS, "answer": "B"},
        "A cat sat.\none: Who sat?\nA) a dog\nB) a cat\nC) a cow\nD) a hen\nB",
    ),
    "cmrc_cn": (
        PARAGRAPH | {"answers": {"text": ["猫", "一只猫"], "answer_start": [0, 0]}},
        "猫坐着。\n谁坐着？\n猫",
    ),
}


NAMING_FILES = ["wikitext2", "ptb", "c4", "snips", "alpaca_eval", "mctest"]


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AddToHub:
    return empty_hub_cache(tmp_path / "hub", monkeypatch)


def write_jsonl(path: Path, rows: list[Row]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def write_json(path: Path, rows: list[Row]) -> None:
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def write_parquet(path: Path, rows: list[Row]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write_gzip(path: Path, rows: list[Row]) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


WRITERS = {".jsonl": write_jsonl, ".json": write_json, ".parquet": write_parquet}


def mirror(root: Path, name: str, suffix: str = ".jsonl", split: str = "test") -> Path:
    """The place of one local file."""
    path = root / name / f"{split}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def local_text(root: Path, name: str, split: str = "test", **changes: Any) -> str:
    protocol = dataset(name, **changes)
    return text_of(protocol, split, locate_dataset(protocol, split, str(root)))


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("name", EIGHT)
def test_rows_of_the_hubs_shape_become_documents(tmp_path: Path, name: str, suffix: str) -> None:
    row, document = HUB_ROWS[name]
    WRITERS[suffix](mirror(tmp_path, name, suffix), [row, row])
    assert local_text(tmp_path, name) == f"{document}\n\n{document}"


@pytest.mark.parametrize("name", EIGHT)
def test_the_text_field_of_a_local_row_is_its_document(tmp_path: Path, name: str) -> None:
    write_jsonl(mirror(tmp_path, name), [HUB_ROWS[name][0] | {"text": "ready  made"}, {"text": ""}])
    assert local_text(tmp_path, name) == "ready  made\n\n"


def test_a_txt_file_is_one_document(tmp_path: Path) -> None:
    mirror(tmp_path, "ptb", ".txt").write_text("<unk>  a\n\n\nb 中\n", encoding="utf-8")
    assert local_text(tmp_path, "ptb") == "<unk>  a\n\n\nb 中\n"


def test_documents_are_joined_as_the_protocol_says(tmp_path: Path) -> None:
    write_jsonl(mirror(tmp_path, "snips"), [{"text": word} for word in "abc"])
    assert local_text(tmp_path, "snips") == "a\n\nb\n\nc"
    assert local_text(tmp_path, "snips", join=" ") == "a b c"
    assert local_text(tmp_path, "snips", rows=2) == "a\n\nb"


def test_c4_is_its_first_2000_documents_and_reads_no_further(tmp_path: Path) -> None:
    path = mirror(tmp_path, "c4")
    write_jsonl(path, [{"text": str(number)} for number in range(2000)])
    with path.open("a") as file:
        file.write("not JSON\n")
    assert local_text(tmp_path, "c4").split("\n\n") == [str(number) for number in range(2000)]


@pytest.mark.parametrize("name", NAMING_FILES)
def test_the_hubs_files_are_read_in_order(hub_cache: AddToHub, tmp_path: Path, name: str) -> None:
    """Each row is composed as the protocol says, even where it has a `text` field besides."""
    protocol = dataset(name)
    row, document = HUB_ROWS[name]
    files = {}
    for number, file in enumerate(protocol.files["test"]):
        path = tmp_path / Path(file).name
        write = {".parquet": write_parquet, ".gz": write_gzip, ".json": write_json}[path.suffix]
        write(path, [{"text": "not this"} | {k: renumbered(v, number) for k, v in row.items()}])
        files[file] = path.read_bytes()
    hub_cache(protocol.hub, files, kind="dataset", reference=protocol.revision)
    source = dataclasses.replace(locate_dataset(protocol, "test", None), commit=COMMIT)
    documents = [renumbered(document, number) for number in range(len(files))]
    assert text_of(protocol, "test", source) == "\n\n".join(documents)


def renumbered(value: Any, number: int) -> Any:
    """The same text with another word in it, so that the order of the files shows."""
    return value.replace("sat", f"sat{number}") if isinstance(value, str) else value


def test_a_hub_dataset_that_names_no_files_is_read_by_its_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    row, document = HUB_ROWS["alpaca_eval_jp"]
    folder = tmp_path / "repository"
    folder.mkdir()
    write_parquet(folder / "train-00000-of-00001.parquet", [row, row])
    protocol = dataset("alpaca_eval_jp", hub=str(folder), revision="0" * 40)
    source = locate_dataset(protocol, "test", None)
    assert text_of(protocol, "test", source) == f"{document}\n\n{document}"


def test_a_hub_file_that_is_nowhere_names_both_places(hub_cache: AddToHub) -> None:
    protocol = dataset("c4")
    source = locate_dataset(protocol, "test", None)
    with pytest.raises(
        NsvdError, match=r"c4/test\.jsonl .* is not there, and .*allenai/c4.*data_dir"
    ):
        text_of(protocol, "test", source)


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("ptb", {"words": "a"}, r"field 'sentence' is missing; .*the row has: words$"),
        ("ptb", {"sentence": None}, "field 'sentence' is null"),
        ("snips", {"text": None}, "field 'text' is null"),
        ("alpaca_eval", {"instruction": "a", "output": None}, "field 'output' is null"),
        ("mctest", STORY | {"answer_options": {"A": "a"}, "answer": "A"},
         r"field 'answer_options\[B\]' is missing"),
        ("cmrc_cn", PARAGRAPH | {"answers": {"text": []}}, r"field 'answers\[text\]\[0\]' is miss"),
        ("cmrc_cn", PARAGRAPH | {"answers": None}, r"field 'answers\[text\]\[0\]' is missing"),
    ],
)  # fmt: skip
def test_a_row_without_its_fields_is_named(
    tmp_path: Path, name: str, row: Row, message: str
) -> None:
    path = mirror(tmp_path, name)
    write_jsonl(path, [HUB_ROWS[name][0], row])
    with pytest.raises(NsvdError, match=rf"^{path}, row 2: {message}"):
        local_text(tmp_path, name)


def test_a_template_that_is_none_is_an_error(tmp_path: Path) -> None:
    write_jsonl(mirror(tmp_path, "ptb"), [HUB_ROWS["ptb"][0]])
    with pytest.raises(NsvdError, match=r"row 1: .*the document is '\{sentence'"):
        local_text(tmp_path, "ptb", document="{sentence")


@pytest.mark.parametrize(("suffix", "content"), [(".jsonl", ""), (".json", "[]"), (".jsonl", "\n")])
def test_a_file_without_rows_is_an_error(tmp_path: Path, suffix: str, content: str) -> None:
    path = mirror(tmp_path, "ptb", suffix)
    path.write_text(content)
    with pytest.raises(NsvdError, match=f"dataset ptb: {path} has no rows"):
        local_text(tmp_path, "ptb")


def test_a_mark_in_front_of_utf_8_is_no_part_of_the_text(tmp_path: Path) -> None:
    """And what was measured with it in the text is another measurement."""
    rows = {".txt": "w2 w3", ".jsonl": '{"text": "w2 w3"}\n', ".json": ' \n[{"text": "w2 w3"}]'}
    rows[".csv"] = "text,n\nw2 w3,1\n"
    for suffix, content in rows.items():
        path = mirror(tmp_path / suffix, "ptb", suffix)
        path.write_text(content, encoding="utf-8-sig")
        assert local_text(tmp_path / suffix, "ptb") == "w2 w3"
        source = locate_dataset(dataset("ptb"), "test", str(tmp_path / suffix))
        assert source.identity["bom"] == "left out"
        path.write_text(content, encoding="utf-8")
        source = locate_dataset(dataset("ptb"), "test", str(tmp_path / suffix))
        assert "bom" not in source.identity


def test_more_formats_are_read(tmp_path: Path) -> None:
    rows = [{"text": "a,\n中"}, {"text": "b" * 200_000}]
    expected = "\n\n".join(row["text"] for row in rows)
    write_gzip(mirror(tmp_path / "gz", "ptb", ".jsonl.gz"), rows)
    mirror(tmp_path / "list", "ptb", ".json").write_text(f"\n {json.dumps(rows)}")
    with mirror(tmp_path / "csv", "ptb", ".csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "text"], *([n, r["text"]] for n, r in enumerate(rows))])
    for number, row in enumerate(rows):
        write_parquet(mirror(tmp_path / "shards", "ptb", f"-{number:05}-of-00002.parquet"), [row])
    folder = tmp_path / "saved" / "ptb" / "test"
    datasets.Dataset.from_list(rows).save_to_disk(folder, num_shards=2)
    for name in ("gz", "list", "csv", "shards", "saved"):
        assert local_text(tmp_path / name, "ptb") == expected, name
    (tmp_path / "shards/ptb/test-00000-of-00002.parquet").unlink()
    with pytest.raises(NsvdError, match=r"ptb has 1 of the 2 files test-\*-of-00002\.parquet"):
        local_text(tmp_path / "shards", "ptb")
    next(folder.glob("*.arrow")).unlink()
    with pytest.raises(NsvdError, match=r"arrow is not there, though state\.json"):
        local_text(tmp_path / "saved", "ptb")


def test_shards_in_another_order_are_another_text(tmp_path: Path) -> None:
    for name, words in (("one", "ab"), ("other", "ba")):
        for number, word in enumerate(words):
            path = mirror(tmp_path / name, "ptb", f"-{number:05}-of-00002.parquet")
            write_parquet(path, [{"text": word}])
    one, other = (
        locate_dataset(dataset("ptb"), "test", str(tmp_path / n)) for n in ("one", "other")
    )
    assert one.identity != other.identity


def test_a_bad_row_is_named_by_its_file_and_its_number(tmp_path: Path) -> None:
    for number, rows in enumerate(([{"text": "a"}], [{"text": "b"}, {"words": "c"}])):
        write_parquet(
            mirror(tmp_path, "ptb", f"-{number:05}-of-00002.parquet"),
            rows if number else [*rows, *rows],
        )
    with pytest.raises(NsvdError, match=r"test-00001-of-00002\.parquet, row 2: field 'sentence'"):
        local_text(tmp_path, "ptb")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text\na\nb,c\n", "row 2: it has more fields"),
        ('text\na\n"b', "row 2 is not CSV"),
    ],
)
def test_a_bad_row_of_a_csv_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    mirror(tmp_path, "ptb", ".csv").write_text(text)
    with pytest.raises(NsvdError, match=rf"test\.csv, {message}"):
        local_text(tmp_path, "ptb")


def test_a_folder_without_the_split_is_told_what_it_holds(tmp_path: Path) -> None:
    for name in "fedcba":
        mirror(tmp_path, "mine", f".{name}").write_text("")
    own = DatasetConfig(name="mine", title="Mine")
    with pytest.raises(NsvdError) as caught:
        locate_dataset(own, "test", str(tmp_path))
    assert str(caught.value) == (
        f"dataset mine: {tmp_path}/mine/test.jsonl (.json, .parquet, .txt, .csv) is not there "
        f"({tmp_path}/mine holds test.a, test.b, test.c, test.d, test.e, ...), and its "
        "configuration names no hub"
    )


def test_the_first_folder_that_has_a_split_is_read(tmp_path: Path) -> None:
    folders = [str(tmp_path / name) for name in ("one", "two")]
    for folder, names in zip(folders, (["ptb"], ["ptb", "c4"]), strict=True):
        for name in names:
            write_jsonl(mirror(Path(folder), name), [{"text": f"{folder} {name}"}])
    found = {
        name: text_of(dataset(name), "test", locate_dataset(dataset(name), "test", folders))
        for name in ("ptb", "c4")
    }
    assert found == {"ptb": f"{folders[0]} ptb", "c4": f"{folders[1]} c4"}


def cut(write: Callable[[Path, list[Row]], None], path: Path, damage: bytes) -> bytes:
    """A file of many rows whose middle is `damage`, and whose end is missing if that is empty."""
    write(path, [{"text": f"row {number}" * (number % 7)} for number in range(500)])
    whole = path.read_bytes()
    middle = len(whole) // 2
    return whole[:middle] + damage + (whole[middle + len(damage) :] if damage else b"")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text"\n', "row 2 is not JSON"),
        ("a.jsonl", b"plain text", "is not JSON"),
        ("a.json", b'[{"text": "a"},', "is not JSON"),
        ("a.json", b'[{"text": "a"}, "b"]', "row 2: expected an object, found 'b'"),
        ("a.jsonl", b'{"text": "a"}\n[1]\n', r"row 2: expected an object, found \[1\]"),
        ("a.jsonl", b'{"text": "\xff"}\n', "cannot be read: .*utf-8"),
        ("a.txt", b"\xff\xfe", "cannot be read: .*utf-8"),
        ("a.parquet", b"", "cannot be read"),
        ("a.parquet", b"no parquet", "cannot be read"),
        ("a.json.gz", b"no gzip", "cannot be read"),
        ("a.json.gz", gzip.compress(b"{}")[:10] + b"\xff" * 20, "cannot be read"),
    ],
)
def test_a_damaged_file_is_one_message(
    tmp_path: Path, file: str, content: bytes, message: str
) -> None:
    path = tmp_path / file
    path.write_bytes(content)
    with pytest.raises(NsvdError, match=rf"^{path}.* ?{message}"):
        list(read_rows(path))


@pytest.mark.parametrize("damage", [b"", b"\xff" * 60], ids=["cut off", "overwritten"])
@pytest.mark.parametrize(
    ("suffix", "write"), [(".parquet", write_parquet), (".json.gz", write_gzip)]
)
def test_damage_in_the_middle_of_a_file_is_one_message(
    tmp_path: Path, suffix: str, write: Callable[[Path, list[Row]], None], damage: bytes
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(cut(write, path, damage))
    with pytest.raises(NsvdError, match=f"^{path}.* (cannot be read|is not JSON)"):
        list(read_rows(path))


def with_bos() -> PreTrainedTokenizerFast:
    """The word tokenizer, but it begins every text with `<s>`, as LLaMA's does."""
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte; `<unk>` and `<s>` are special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<unk>": 0, "<s>": 1} | {c: i for i, c in enumerate(alphabet, start=2)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>")


def ordered_words(count: int) -> str:
    return " ".join(f"w{2 + number % 97}" for number in range(count))


@pytest.mark.parametrize("length", [2, 7, 30])
def test_windows_are_the_whole_text_cut_without_its_tail(length: int) -> None:
    ids = [2 + number % 97 for number in range(30)]
    tokens = windows(make_tokenizer(), ordered_words(30), length)
    assert tokens.ids.shape == (30 // length, length)
    assert tokens.ids.flatten().tolist() == ids[: 30 // length * length]
    assert not tokens.bos


def test_the_cap_keeps_the_first_windows() -> None:
    every = windows(make_tokenizer(), ordered_words(30), 7)
    for cap in (1, 3, 4, 99):
        capped = windows(make_tokenizer(), ordered_words(30), 7, cap)
        assert capped.ids.tolist() == every.ids[:cap].tolist()


def test_a_text_is_tokenised_once_so_it_has_one_bos() -> None:
    tokens = windows(with_bos(), ordered_words(30), 7)
    assert tokens.bos
    assert (tokens.ids == 1).nonzero().tolist() == [[0, 0]]


@pytest.mark.parametrize("make", [make_tokenizer, with_bos])
@pytest.mark.parametrize("length", [2, 7, 30])
def test_a_bos_in_each_window_stands_before_the_text_of_it(
    make: Callable[[], Any], length: int
) -> None:
    """And the text is whole: nothing is lost, nothing twice, and its own BOS does not count."""
    ids = [2 + number % 97 for number in range(60)]
    tokens = windows(make(), ordered_words(60), length, bos="window")
    count = 60 // (length - 1)
    assert tokens.ids.shape == (count, length)
    assert tokens.ids[:, 0].eq(1).all()
    assert tokens.ids[:, 1:].flatten().tolist() == ids[: count * (length - 1)]
    assert tokens.bos
    capped = windows(make(), ordered_words(60), length, 2, bos="window")
    assert capped.ids.tolist() == tokens.ids[:2].tolist()


def test_a_tokenizer_without_a_bos_puts_none_in_each_window() -> None:
    tokenizer = make_tokenizer()
    tokenizer.bos_token = None
    with pytest.raises(NsvdError, match=r"the tokenizer has no BOS; use evaluation\.bos=first"):
        windows(tokenizer, ordered_words(30), 7, bos="window")


def test_special_tokens_that_are_spelt_out_are_found() -> None:
    assert special_tokens_in(make_tokenizer(), "w2 <s> w3 <unk>") == ["<s>", "<unk>"]
    assert special_tokens_in(make_tokenizer(), "w2 < s > w3") == []


def test_a_text_shorter_than_a_window_is_an_error() -> None:
    assert len(windows(make_tokenizer(), ordered_words(7), 7).ids) == 1
    with pytest.raises(NsvdError, match=r"^ptb has 6 tokens, fewer than one window of 7: .*eval"):
        windows(make_tokenizer(), ordered_words(6), 7, name="ptb")


def test_the_recorded_hash_is_of_the_ids_in_order() -> None:
    tokens = windows(make_tokenizer(), ordered_words(30), 7)
    ids = tokens.ids.flatten().tolist()
    assert tokens.sha256 == hashlib.sha256(struct.pack(f"<{len(ids)}i", *ids)).hexdigest()


def token_ids(tokenizer: Any, text: str, split_special_tokens: bool) -> list[int]:
    found = windows(tokenizer, text, 2, split_special_tokens=split_special_tokens)
    return found.ids.flatten().tolist()


def test_unk_is_five_characters_or_the_unknown_token() -> None:
    tokenizer, text = byte_tokenizer(), "a <unk> b <s>c"
    split, special = (token_ids(tokenizer, text, flag) for flag in (True, False))
    assert tokenizer.decode(split) == text
    assert len(split) == len(text)
    assert {0, 1}.isdisjoint(split)
    assert (special.count(0), special.count(1)) == (1, 1)


def uneven_text(seed: int = 0) -> str:
    """Stretches of short words and of words so long that ten characters a token do not suffice."""
    generator = random.Random(seed)
    stretches = (
        [f"w{generator.randint(2, 98)}" + "o" * (14 * is_long) for _ in range(40 - 20 * is_long)]
        for is_long in generator.choices((False, True), (8, 1), k=100)
    )
    return "\n\n".join(" ".join(stretch) for stretch in stretches)


def samples_by_the_readme(
    tokenizer: Any, text: str, samples: int, length: int, seed: int
) -> tuple[list[list[int]], int]:
    """The protocol of the paper's README, with Python's own `random`; and how many were skipped."""
    random.seed(seed)
    kept = []
    for _ in range(samples + 1):
        start = random.randint(0, len(text) - length - 1)
        ids = tokenizer(text[start : start + 10 * length])["input_ids"]
        if len(ids) >= length:
            kept.append(ids[:length])
    return kept[:samples], samples + 1 - len(kept)


@pytest.mark.parametrize("make", [make_tokenizer, with_bos])
def test_the_papers_sampler_is_svd_llms(make: Callable[[], Any]) -> None:
    tokenizer, text, skipped_once = make(), uneven_text(), 0
    for seed in range(20):
        expected, skipped = samples_by_the_readme(tokenizer, text, 6, 16, seed)
        tokens = calibration_samples(tokenizer, text, 6, 16, seed)
        assert tokens.ids.tolist() == expected
        assert len(expected) == min(6, 7 - skipped)
        assert tokens.bos == (make is with_bos)
        skipped_once += skipped == 1
    assert skipped_once, "no seed shows that one more is drawn than asked for"


def test_every_sample_of_the_papers_sampler_has_its_own_bos() -> None:
    tokens = calibration_samples(with_bos(), uneven_text(), 6, 16)
    assert tokens.ids[:, 0].eq(1).all()
    assert not tokens.ids[:, 1:].eq(1).any()


def test_the_token_sampler_draws_from_the_whole_tokenised_text() -> None:
    tokenizer, text = make_tokenizer(), uneven_text()
    ids = tokenizer(text)["input_ids"]
    runs = {tuple(ids[start : start + 16]): start for start in range(len(ids) - 15)}
    drawn = calibration_samples(tokenizer, text, 50, 16, sampler="tokens")
    samples = [tuple(row) for row in drawn.ids.tolist()]
    assert len(samples) == 50
    assert set(samples) <= set(runs)
    assert max(runs[sample] for sample in samples) > len(ids) / 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_seed_is_a_draw(sampler: str) -> None:
    def drawn(seed: int) -> list[list[int]]:
        return samples_of(make_tokenizer(), ordered_words(500), 4, sampler, seed).ids.tolist()

    assert drawn(3) == drawn(3)
    assert len({str(drawn(seed)) for seed in range(5)}) == 5


def samples_of(tokenizer: Any, text: str, count: int, sampler: str, seed: int = 3) -> Tokens:
    """Samples of 8 tokens."""
    return calibration_samples(tokenizer, text, count, 8, seed, sampler)


def test_a_text_of_exactly_one_sample_is_that_sample() -> None:
    tokenizer = make_tokenizer()
    expected = [[2, 3, 4, 5, 6, 7, 8, 9]] * 3
    assert samples_of(tokenizer, ordered_words(8), 3, "tokens").ids.tolist() == expected
    text = "w " * 4 + "w"  # 9 characters: the only offset is 0, and it gives 5 tokens
    with pytest.raises(NsvdError, match="gave no sample of 8 tokens"):
        samples_of(tokenizer, text, 3, "svdllm")
    tokens = samples_of(byte_tokenizer(), text, 3, "svdllm")
    assert list(map(byte_tokenizer().decode, tokens.ids.tolist())) == [text[:8]] * 3


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("text", ["", "w2 w3", "w" * 200], ids=["empty", "short", "few tokens"])
def test_calibration_text_shorter_than_a_sample_is_an_error(sampler: str, text: str) -> None:
    message = rf"text \({len(text)} characters\) gave no sample of 8 .*calibration\.length"
    with pytest.raises(NsvdError, match=message):
        samples_of(make_tokenizer(), text, 2, sampler)


def test_a_sampler_that_is_not_there_is_an_error() -> None:
    with pytest.raises(NsvdError, match=r"unknown sampler 'token'\. Did you mean tokens"):
        samples_of(make_tokenizer(), ordered_words(500), 2, "token")
