"""The bundled text and model: made from a seed, free of leaks, and good enough to be measured."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from make_bundled import corpora
from make_bundled.build import build, encode
from make_bundled.corpora import grammar, morphology
from make_bundled.train import WINDOW, stream_perplexity
from nsvd_exp.bundled import MODEL_DIR, TASKS_DIR, TEXT_DIR

DATASETS = list(corpora.DATASETS)
FILES = [*(f"{name}/test" for name in DATASETS), "wikitext2/train"]


def stored(key: str) -> list[str]:
    """The rows of a committed text file."""
    lines = (TEXT_DIR / f"{key}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL_DIR)


@pytest.fixture(scope="module")
def streams(tokenizer):
    return {name: encode(tokenizer, "\n\n".join(stored(f"{name}/test"))) for name in DATASETS}


@pytest.mark.parametrize("key", FILES)
def test_text_follows_from_the_seed(key):
    name, split = key.split("/")
    if split == "test":
        documents = corpora.evaluation_documents(name)
    else:
        documents = corpora.train_documents(name, split, corpora.SEED, corpora.CALIBRATION_CHARS)
    rows = corpora.flatten(documents)
    expected = "".join(json.dumps({"text": r}, ensure_ascii=False) + "\n" for r in rows)
    assert (TEXT_DIR / f"{key}.jsonl").read_bytes() == expected.encode()


@pytest.mark.parametrize("name", DATASETS)
def test_another_seed_gives_other_text_and_no_test_row_stands_in_training_text(name):
    one, two = (corpora.generate(name, "test", seed, 2000) for seed in (1, 2))
    assert one != two
    assert one == corpora.generate(name, "test", 1, 2000)
    held_out = {row for row in stored(f"{name}/test") if not corpora.is_heading(row)}
    sample = corpora.train_documents(name, "stream", corpora.SEED, 150_000)
    assert held_out.isdisjoint(corpora.flatten(sample))


def test_exclusion_drops_what_it_is_given_so_calibration_text_holds_no_test_paragraph():
    free = corpora.generate("snips", "stream", 3, 20_000)
    banned = {free[0][0], free[5][0]}
    kept = corpora.flatten(corpora.generate("snips", "stream", 3, 20_000, exclude=banned))
    assert banned.isdisjoint(kept)
    test = {row for row in stored("wikitext2/test") if not corpora.is_heading(row)}
    train = stored("wikitext2/train")
    assert test.isdisjoint(train)
    assert 250_000 < sum(len(row) for row in train) < 350_000


@pytest.mark.parametrize("key", FILES)
def test_rows_are_filled_and_templates_are_spent(key):
    for row in stored(key):
        assert row == row.strip()
        assert row
        assert not re.search(r"[{}]|\w\|\w", row), row
        assert "\n\n" not in row


def test_words_are_many_and_wikitext_rows_are_headings_and_paragraphs():
    text = " ".join(row for key in FILES for row in stored(key))
    assert len(set(re.findall(r"[a-z]+", text.lower()))) > 3000
    rows = stored("wikitext2/test")
    titles = [row for row in rows if re.fullmatch(r"= [^=]+ =", row)]
    sections = [row for row in rows if re.fullmatch(r"= = [^=]+ = =", row)]
    assert rows[0] in titles
    assert len(titles) > 10
    assert len(sections) > len(titles)


def test_newswire_is_lower_case_with_marks():
    rows = stored("ptb/test")
    assert all(word == "N" or word == word.lower() for row in rows for word in row.split())
    assert any("<unk>" in row for row in rows)
    assert any(" N " in row for row in rows)
    assert not any(re.search(r"\d", row) for row in rows)


def test_every_story_comes_with_each_of_its_four_questions():
    rows = [row.split("\n") for row in stored("mctest/test")]
    assert len(rows) % 4 == 0
    for start in range(0, len(rows), 4):
        group = rows[start : start + 4]
        assert len({row[0] for row in group}) == 1
        assert len({row[1] for row in group}) == 4
        for _, _, *options, answer in group:
            assert [option[:3] for option in options] == ["A) ", "B) ", "C) ", "D) "]
            assert len(set(options)) == 4
            assert re.fullmatch("Answer: [ABCD]", answer)


def test_east_asian_sets_are_in_their_scripts_and_chinese_answers_in_their_passages():
    for name, script in (("cmrc_cn", "[一-龥]"), ("alpaca_eval_jp", "[ぁ-ヿ]")):
        for row in stored(f"{name}/test"):
            assert re.search(script, row)
            assert not re.search("[A-Za-z]", row)
    for row in stored("cmrc_cn/test"):
        passage, *pairs = row.split("\n")
        for answer in pairs[1::2]:
            assert answer.removeprefix("答案：").removeprefix("约") in passage


def test_grammar_binds_and_modifies():
    rules = grammar.Grammar({"thing": ["apple"], "verb": ["carry"]})
    rng = grammar.Random(0)
    text = rules.expand("[{x=thing:a}|{x=thing:a}] and {x}, {thing:pl:cap} {verb:ed}", rng)
    assert text == "an apple and an apple, Apples carried"
    with pytest.raises(KeyError, match="no rule 'nothing'"):
        rules.expand("{nothing}", rng)


@pytest.mark.parametrize(
    ("change", "word", "form"),
    [
        (morphology.plural, "fisherman", "fishermen"),
        (morphology.plural, "rowing boat", "rowing boats"),
        (morphology.past, "wrap", "wrapped"),
        (morphology.gerund, "make", "making"),
        (morphology.third_person, "carry", "carries"),
        (morphology.with_article, "hour", "an hour"),
        (morphology.with_article, "uniform", "a uniform"),
    ],
)
def test_inflection(change, word, form):
    assert change(word) == form


def test_paths_cost_no_heavy_import():
    code = "import sys, nsvd_exp.bundled as b; assert b.TEXT_DIR; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_tokenizer_round_trips_and_adds_nothing(tokenizer):
    text = "A café – 雪の山 \U0001f40d\t= Title =\n\nN <unk> 1907"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token is None
    assert tokenizer.bos_token is None


def test_model_is_small_and_mostly_blocks():
    model, info = AutoModelForCausalLM.from_pretrained(MODEL_DIR, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    total = sum(p.numel() for p in model.parameters())
    blocks = sum(p.numel() for p in model.model.layers.parameters())
    assert 1e6 <= total <= 4e6
    assert blocks > 0.7 * total
    assert all(torch.isfinite(p).all() for p in model.parameters())
    files = [p for p in MODEL_DIR.parent.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert sum(p.stat().st_size for p in files) < 8e6


def test_dense_perplexity_means_something_and_plain_svd_doubles_it(streams):
    model = AutoModelForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.float32).eval()
    dense = {name: stream_perplexity(model, ids[: 12 * WINDOW]) for name, ids in streams.items()}
    truncate_blocks(model, ratio=0.5)
    broken = {name: stream_perplexity(model, ids[: 12 * WINDOW]) for name, ids in streams.items()}
    assert all(2 < value < 30 for value in dense.values()), dense
    assert all(12_000 <= len(ids) <= 16_000 for ids in streams.values())
    doubled = [name for name in DATASETS if broken[name] > 2 * dense[name]]
    assert len(doubled) > len(DATASETS) / 2, (dense, broken)


@torch.no_grad()
def truncate_blocks(model, ratio: float) -> None:
    """Replace every linear layer of the blocks by its truncated singular value decomposition."""
    for layer in model.model.layers.modules():
        if isinstance(layer, torch.nn.Linear):
            m, n = layer.weight.shape
            k = int(m * n * (1 - ratio) / (m + n))
            U, S, Vh = torch.linalg.svd(layer.weight, full_matrices=False)
            layer.weight.copy_(U[:, :k] * S[:k] @ Vh[:k])


@pytest.mark.slow
def test_a_short_build_works_end_to_end(tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "stale").touch()
    build(tmp_path, seed=7, steps=2, scale=0.02)
    assert {p.name for p in tmp_path.iterdir()} == {"tiny", "text", "tasks"}
    assert not (tmp_path / "tiny" / "stale").exists()
    texts = tmp_path / "text"
    assert {p.relative_to(texts).as_posix() for p in texts.rglob("*.jsonl")} == {
        f"{key}.jsonl" for key in FILES
    }
    files = {path.name for path in (tmp_path / "tasks").iterdir()}
    assert files == {path.name for path in TASKS_DIR.iterdir()}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tiny")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "tiny")
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)


def test_an_interrupted_build_damages_nothing(tmp_path, monkeypatch):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "weights").write_text("old")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.Muon, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, seed=7, steps=2, scale=0.02)
    assert (tmp_path / "tiny" / "weights").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["tiny"]
