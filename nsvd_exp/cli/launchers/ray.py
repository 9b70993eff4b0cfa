"""Ray: one task for each cell, placed by Ray on whatever its cluster has."""

from __future__ import annotations

import functools
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hydra.core.utils import JobReturn

from nsvd_exp.cli.jobs import Jobs
from nsvd_exp.cli.launchers.task import Ended, Task, bound_bases, lost, require, run_quietly
from nsvd_exp.errors import NsvdError
from nsvd_exp.models.devices import SHARE_OF_BASES

CELLS_A_NODE_WITHOUT_GPU = 2


def check() -> None:
    """Make sure that Ray is installed.

    Raises:
        NsvdError: it is not.
    """
    require("ray", "ray")


def run(
    tasks: Sequence[Task],
    address: str,
    num_gpus: float | None,
    num_cpus: float | None,
    init: Mapping[str, Any] | None,
) -> Ended:
    """Run all tasks on a Ray cluster. If interrupted, Ray ends those that are under way.

    Args:
        address: `local`, which is a Ray of its own on this machine; or `ray://HOST:10001`,
            `HOST:6379`, `auto`.
        num_gpus: a cell; None: 1 if the cluster has GPUs.
        num_cpus: a cell; None: its share of a node (see `share_of`).
        init: more arguments of `ray.init`.

    Raises:
        NsvdError: no cluster is there.
    """
    import ray

    _check_answers(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **(init or {}))
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise NsvdError(f"hydra.launcher.address={address}: {error}") from None
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus, cpus = share_of(nodes)
        asked = cpus if num_cpus is None else num_cpus
        remote = ray.remote(_run).options(
            num_gpus=gpus if num_gpus is None else num_gpus,
            num_cpus=asked,
            max_retries=0,  # what killed a process once may kill it again
        )
        bound_bases(tasks, int(SHARE_OF_BASES * memory_of(nodes, asked)))
        waiting = {remote.remote(task): task for task in tasks}
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            task = waiting.pop(done)
            try:
                returned = ray.get(done)
            except ray.exceptions.RayError as error:
                returned = lost(task, f"{type(error).__name__}: {str(error).splitlines()[0]}")
            yield task, returned
    finally:
        ray.shutdown()


def _run(task: Task) -> JobReturn:
    return run_quietly(replace(task, function=_jobs_of_this_process()))


@functools.cache
def _jobs_of_this_process() -> Jobs:
    """What the tasks share that Ray gives to one process, one after another; nothing of Ray's own
    outlives a task."""
    return Jobs()


def _check_answers(address: str) -> None:
    """Raise an NsvdError if nothing answers there: Ray itself would try for many minutes."""
    found = re.fullmatch(r"(?:ray://)?(.+):(\d+)", address)
    if not found:
        return
    try:
        socket.create_connection((found[1], int(found[2])), timeout=10).close()
    except OSError as error:
        raise NsvdError(
            f"hydra.launcher.address={address}: no Ray answers there: {error}"
        ) from None


def memory_of(nodes: Sequence[Mapping[str, float]], cpus: float) -> float:
    """Bytes of a cell: the part of a node's `memory` that its CPUs are of the node's.

    Args:
        nodes: as for `share_of`.
        cpus: of a cell.
    """
    return min(
        n["memory"] * min(cpus / n["CPU"], 1.0) for n in nodes if n.keys() >= {"CPU", "memory"}
    )


def share_of(nodes: Sequence[Mapping[str, float]]) -> tuple[int, int]:
    """GPUs and CPUs of a cell: a GPU and its share of the node's CPUs, where there are GPUs.

    Args:
        nodes: the resources (`CPU`, `GPU`) of each node.
    """
    with_gpu = [node for node in nodes if node.get("GPU")]
    cpus = [
        node["CPU"] / node.get("GPU", CELLS_A_NODE_WITHOUT_GPU)
        for node in with_gpu or nodes
        if "CPU" in node
    ]
    return int(bool(with_gpu)), max(1, int(min(cpus, default=1)))
