"""Make the bundled text, tasks, tokenizer and model again from nothing.

    python -m make_bundled.build

Everything is written to a temporary folder first and moved into place at the end, so that an
interrupted build leaves the old files alone. Text and tasks depend on the seed alone; the weights
also depend on the machine's arithmetic.

It takes five to nine minutes on two cores. Expect a dense perplexity of 2.3 (alpaca_eval_jp) to 5.0
(c4); plain SVD at ratio 0.5 raises it about a hundredfold.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from make_bundled import corpora
from make_bundled.tasks import write_tasks
from make_bundled.tokenizer import train_tokenizer
from make_bundled.train import WINDOW, new_model, stream_perplexity, train
from nsvd_exp.bundled import MODEL_DIR

VOCAB_SIZE = 2048
STEPS = 600
STREAM_CHARS = 1_500_000
STREAM_CHARS_SHORT_SCRIPT = 800_000
TOKENIZER_CHARS = 400_000  # of each corpus


def write_text(folder: Path, seed: int, scale: float) -> dict[str, list[str]]:
    """Write `text/<dataset>/<split>.jsonl` and return the rows of every file written."""
    rows = {
        f"{name}/test": corpora.flatten(corpora.evaluation_documents(name, seed, scale))
        for name in corpora.DATASETS
    }
    rows["wikitext2/train"] = corpora.flatten(
        corpora.train_documents("wikitext2", "train", seed, corpora.CALIBRATION_CHARS, scale)
    )
    for key, texts in rows.items():
        path = folder / f"{key}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        path.write_text("".join(encoded), encoding="utf-8", newline="\n")
    return rows


def training_text(seed: int, scale: float) -> dict[str, str]:
    """A long text of each corpus for the model to learn from, free of test documents."""
    texts = {}
    for name in corpora.DATASETS:
        short = name in corpora.SHORT_SCRIPTS
        chars = STREAM_CHARS_SHORT_SCRIPT if short else STREAM_CHARS
        documents = corpora.train_documents(name, "stream", seed, chars, scale)
        texts[name] = "\n\n".join(corpora.flatten(documents))
    return texts


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> torch.Tensor:
    """The tokens `(tokens,)` of a text, with nothing added."""
    return torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])


def move_into_place(built: Path, out: Path) -> None:
    """Swap the finished folders in, each by a rename."""
    for new in sorted(built.iterdir()):
        target, old = out / new.name, built.parent / f"old-{new.name}"
        if target.exists():
            target.rename(old)
        new.rename(target)
        if old.exists():
            shutil.rmtree(old)


def build(out: Path, seed: int, steps: int, scale: float = 1.0) -> dict[str, float]:
    """Make everything under `out` and return the dense perplexity of each test set.

    `scale` shrinks all text, for trials.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".building-") as workspace:
        built = Path(workspace) / "built"
        rows = write_text(built / "text", seed, scale)
        write_tasks(built / "tasks", rows, seed)
        texts = training_text(seed, scale)
        parts = [text[: int(TOKENIZER_CHARS * scale)] for text in texts.values()]
        tokenizer = train_tokenizer(parts, VOCAB_SIZE)
        streams = {name: encode(tokenizer, text) for name, text in texts.items()}
        torch.manual_seed(seed)
        model = new_model(len(tokenizer), tokenizer.eos_token_id)
        model = train(model, streams, steps, seed).to(torch.float16)
        model.save_pretrained(built / "tiny")
        tokenizer.save_pretrained(built / "tiny")
        move_into_place(built, out)
    model.float()
    scores = {}
    for name in corpora.DATASETS:
        ids = encode(tokenizer, "\n\n".join(rows[f"{name}/test"]))
        if len(ids) >= WINDOW:
            scores[name] = stream_perplexity(model, ids)
            print(f"{name:15s} {len(ids):6d} tokens   perplexity {scores[name]:7.2f}")
    return scores


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Build the bundled model and text.")
    parser.add_argument("--out", type=Path, default=MODEL_DIR.parent, help="folder to write to")
    parser.add_argument("--seed", type=int, default=corpora.SEED)
    parser.add_argument("--steps", type=int, default=STEPS, help="training batches")
    parser.add_argument("--scale", type=float, default=1.0, help="shrink all text by this factor")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    started = time.time()
    build(options.out, options.seed, options.steps, options.scale)
    print(f"built in {(time.time() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
