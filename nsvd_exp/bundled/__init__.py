"""The bundled default: a tiny trained language model (`tiny`), eight small corpora (`text`), two
tasks over them (`tasks`).

They are made by `python -m make_bundled.build` in a checkout of the repository. This module imports
nothing heavy, so that a configuration can name the paths cheaply.
"""

from pathlib import Path

MODEL_DIR = Path(__file__).resolve().parent / "tiny"
TEXT_DIR = Path(__file__).resolve().parent / "text"
TASKS_DIR = Path(__file__).resolve().parent / "tasks"
