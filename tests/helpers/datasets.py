"""The datasets of `conf/dataset/`, without composing a command line for each."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from helpers.configuration import compose
from nsvd_exp.config.schema import Config
from nsvd_exp.config.sections import DatasetConfig


@functools.cache
def _default() -> Config:
    return compose()


def dataset(name: str, **changes: Any) -> DatasetConfig:
    """The configuration of one dataset, with some fields changed."""
    return dataclasses.replace(_default().dataset[name], **changes)
