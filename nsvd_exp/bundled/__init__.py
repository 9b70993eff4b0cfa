"""The suite's bundled default: a tiny trained language model and eight small corpora.

Everything below this folder is made by ``python -m nsvd_exp.bundled.build``. Importing this
package is free of heavy imports, so that a configuration can name the paths cheaply.
"""

from pathlib import Path

MODEL_DIR = Path(__file__).resolve().parent / "tiny"
TEXT_DIR = Path(__file__).resolve().parent / "text"
