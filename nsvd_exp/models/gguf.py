"""What a GGUF file says of its model: architecture and length, from its first bytes.

The `gguf` package, by which transformers reads the weights, makes Python objects of the whole
vocabulary before it says anything, which takes 20 s for one of 262,144 tokens. This reads keys and
values in their order (the format is described at
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) until it has what a plan needs, and
imports no torch.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

from nsvd_exp.errors import NsvdError

# The types of the format that are plain numbers, by number: their code in `struct`.
NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
STRING, ARRAY = 8, 9
LONGEST = 1 << 24  # bytes of a string; more is damage


def gguf_config(path: Path) -> dict[str, Any]:
    """What stands in for a config.json: the model's type, its length in tokens, and a dtype.

    The weights are dequantised when they are loaded; half precision holds what they were.

    Raises:
        NsvdError: it is no GGUF file, or says neither its architecture nor its length.
    """
    found: dict[str, Any] = {}
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise NsvdError(f"{path} is no GGUF file")
            _number(file, "I")  # the version
            _number(file, "Q")  # how many tensors
            for _ in range(_number(file, "Q")):
                key = _string(file)
                found[key] = _value(file, _number(file, "I"))
                length = found.get(f"{found.get('general.architecture')}.context_length")
                if length is not None:
                    return {
                        "model_type": found["general.architecture"],
                        "max_position_embeddings": length,
                        "dtype": "float16",
                    }
    except (struct.error, KeyError, ValueError) as error:
        raise NsvdError(f"{path} is damaged: {error}") from None
    raise NsvdError(f"{path} does not say its architecture and its context length")


def _value(file: BinaryIO, kind: int) -> Any:
    """A value; of an array only its end is found."""
    if kind == STRING:
        return _string(file)
    if kind != ARRAY:
        return _number(file, NUMBERS[kind])
    inner, count = _number(file, "I"), _number(file, "Q")
    if inner in NUMBERS:
        file.seek(count * struct.calcsize(NUMBERS[inner]), 1)
    else:
        for _ in range(count):
            _value(file, inner)
    return None


def _string(file: BinaryIO) -> str:
    size = _number(file, "Q")
    if size > LONGEST:
        raise ValueError(f"a string of {size} bytes")
    return file.read(size).decode("utf-8")


def _number(file: BinaryIO, code: str) -> Any:
    return struct.unpack(f"<{code}", file.read(struct.calcsize(f"<{code}")))[0]
