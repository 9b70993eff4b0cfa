"""What the cells of a grid share, and the order that lets them share it. Imports no torch.

Cells share the model, the calibration and, for each metric M of stage one, the eigenvectors of
W M Wᵀ (`nsvd_exp.experiment.bases`). What is shared stays in memory while the next cell wants it,
so a grid goes through its models one by one, inside a model through its calibrations, and inside a
calibration through its metrics. Processes that do one grid together go to different metrics first.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from nsvd_exp.config.schema import Config
from nsvd_exp.experiment.resolve import Choices, choices_of, class_identity
from nsvd_exp.methods import Method
from nsvd_exp.methods.svd import IDENTITY

METRIC = 4  # its place in a job's key; up to it stands what the bases of the metric depend on


def metric_of(method: Method) -> Any:
    """What defines the metric of stage one: a name that methods share, or the method itself."""
    first = method.first_stage()
    return first.metric_name() or class_identity(first)


def grid_order(configs: Sequence[Config]) -> list[int]:
    """The indices of the jobs of a grid, in the order they are best run.

    By model, dtype, calibration, metric, method, ratio, k1, each in the order in which its values
    come up first; among calibrations and metrics, what looks at no activations goes first, and
    among metrics then those whose jobs read most of the gradients, which serve the others.
    """
    choices = [choices_of(config) for config in configs]
    keys = [_sharing_key(*job) for job in zip(configs, choices, strict=True)]
    levels = list(zip(*keys, strict=True))
    ranks = [_ranks(values, values) for values in levels]
    if levels:
        metrics = levels[METRIC]
        greediest = sorted(range(len(keys)), key=lambda index: -_read_of_gradients(choices[index]))
        ranks[METRIC] = _ranks(metrics, [metrics[index] for index in greediest])
    return sorted(range(len(keys)), key=lambda index: [rank[index] for rank in ranks])


def sharing_group(config: Config) -> Hashable:
    """What jobs have in common that share the bases of one metric."""
    return _sharing_key(config, choices_of(config))[: METRIC + 1]


def next_job(
    groups: Sequence[Hashable], is_held: Callable[[int], bool], own: Hashable = None
) -> tuple[int, bool]:
    """Which job of those that are left is done next, where several processes do one grid.

    The first job of a group at which no other process works, since two processes in one group
    would make the same bases twice; else the first at which no other process works; else the first.

    Args:
        groups: the group of each job that is left, in the order that they are best run.
        is_held: whether another process works at a job.
        own: the group that this process has worked at last; it comes before the others.

    Returns:
        The index of the job, and whether another process works at it.
    """
    first_free = None
    for group in sorted(dict.fromkeys(groups), key=lambda group: group != own):
        members = [index for index, of in enumerate(groups) if of == group]
        free = [index for index in members if not is_held(index)]
        if len(free) == len(members):
            return members[0], False
        if free and first_free is None:
            first_free = free[0]
    return (0, True) if first_free is None else (first_free, False)


def _sharing_key(config: Config, choices: Choices) -> tuple[Hashable, ...]:
    """What a job shares with others, from what is made first and stays longest."""
    method = choices.method
    is_calibrated = config.measure == "similarity" or choices.is_calibrated
    metric = None if method is None else metric_of(method)
    return (
        (_text(config.model), config.device),
        config.dtype,
        _text(config.calibration, config.data_dir) if is_calibrated else None,
        config.measure,
        None if metric in (None, IDENTITY) else _text(metric),
        _text({name: v for name, v in config.method.items() if name != "k1"}),
        config.ratio,
        config.method.get("k1"),
    )


def _read_of_gradients(choices: Choices) -> int:
    """How many kinds of tensors of the gradients a job reads; 0: it reads no gradients."""
    if choices.method is None or not choices.reads_gradients:
        return 0
    return 1 + len(choices.method.reads_of_gradients)


def _text(*values: Any) -> str:
    plain = [dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for v in values]  # type: ignore[arg-type]
    return json.dumps(plain, sort_keys=True)


def _ranks(values: Sequence[Hashable], first: Sequence[Hashable]) -> list[int]:
    """The place of each value among the different ones, as they come up in `first`; None comes
    before all."""
    order: dict[Hashable, int] = {None: 0}
    for value in first:
        order.setdefault(value, len(order))
    return [order[value] for value in values]
