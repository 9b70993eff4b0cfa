"""The folder beside the repository with small real models and real text, which may be absent."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"

needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"needs {SHARED}: small real models and real text"
)
