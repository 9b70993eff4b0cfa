"""The W&B dashboard of a project, a saved view of the runs of its cells and its report.

Needs the `wandb-workspaces` package (the extra `dashboard`), and a network only to save the view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nsvd_exp.config.files import group_choices

TITLE = "NSVD"

MOST_RUNS = 1000  # a line stands for many runs, one for each point

LAYER_LOSSES = {
    "activation_loss": "‖(W−Ŵ)X‖ / ‖WX‖",
    "weight_loss": "‖W−Ŵ‖ / ‖W‖",
    "discarded_energy": "energy that stage one's own metric loses",
}


def dashboard(
    project: str, entity: str, tables: Sequence[str] = (), figures: Sequence[str] = ()
) -> Any:
    """Perplexity, and times the dense model's, against ratio by method; k1 sensitivity, accuracy
    at tasks, layers; the report's tables and figures.

    A line is the mean over the runs of a method, and its band is their range: to tell models apart,
    filter the runs by model.

    Args:
        tables, figures: names, as `log_report` logged them.

    Returns:
        A `wandb_workspaces.workspaces.Workspace`; its `save` asks the server.

    Raises:
        ImportError: `wandb-workspaces` is not there.
    """
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces

    def lines(title: str, x: str, y: str, log_y: bool) -> Any:
        return panels.LinePlot(
            title=title,
            x=x,
            y=[y],
            log_y=log_y,
            groupby=panels.Config("method"),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            max_runs_to_show=MOST_RUNS,
        )

    def against(x: str) -> list[Any]:
        return [
            lines("average improvement over ASVD-I", x, "average_improvement", False),
            *(lines(name, x, f"perplexity/{name}", True) for name in group_choices("dataset")),
        ]

    sections = {
        "Perplexity against ratio": against("ratio"),
        "Times the dense model's, against ratio": [
            lines(name, "ratio", f"times_dense/{name}", True) for name in group_choices("dataset")
        ],
        "k1 sensitivity": against("k1"),
        "Accuracy at tasks, against ratio": [
            lines("mean accuracy", "ratio", "accuracy/mean", False),
            lines("over dense", "ratio", "accuracy_over_dense/mean", False),
        ],
        "Layers": [
            lines(title, "layer/index", f"layer/{name}", False)
            for name, title in LAYER_LOSSES.items()
        ],
        "Tables": [panels.WeavePanelSummaryTable(table_name=f"tables/{name}") for name in tables],
        "Figures": [panels.MediaBrowser(title=n, media_keys=[f"figures/{n}"]) for n in figures],
    }
    return workspaces.Workspace(
        name=TITLE,
        project=project,
        entity=entity,
        sections=[
            workspaces.Section(name=name, panels=held, is_open=True)
            for name, held in sections.items()
            if held
        ],
        settings=workspaces.WorkspaceSettings(max_runs=MOST_RUNS),
    )
