"""One W&B run for a report: its tables, its figures, its page; and the project's dashboard."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsvd_exp.tracking.dashboard import dashboard
from nsvd_exp.tracking.session import Run, WandbSession, first_line

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)


def log_report(
    tables: Mapping[str, pandas.DataFrame],
    figures: Sequence[Path],
    page: Path,
    mode: str,
    project: str,
    entity: str | None,
    directory: Path,
) -> Run | None:
    """One run with the tables, the figures as images, the page as an artifact; and the dashboard.

    Args:
        tables: by name; of any index and columns.
        figures: PNG or JPEG files.
        page: the HTML page; the artifact holds it beside the figures.
        mode: `online` or `offline`. The dashboard is saved online alone.
        directory: where `wandb/` with the run's files is to be.

    Returns:
        The finished run, or None where W&B failed, which is said.
    """
    session = WandbSession()
    options = {"name": "report", "job_type": "report", "tags": ["report"]}
    run = session.open(mode, directory, project=project, entity=entity, **options)
    if run is None:
        return None
    try:
        import wandb

        artifact = wandb.Artifact("report", type="report")
        for path in (page, *figures):
            artifact.add_file(str(path), name=path.name)
        run.log({f"tables/{name}": _table(frame) for name, frame in tables.items()})
        run.log({f"figures/{path.stem}": wandb.Image(str(path)) for path in figures})
        run.log_artifact(artifact)
        run.finish()
    except Exception as error:
        session.lost_run(run, error)
        return None
    if not run.offline:
        save_dashboard(run.project, run.entity, list(tables), [path.stem for path in figures])
    return run


def _table(frame: pandas.DataFrame) -> Any:
    """The frame, a named index as columns; cells of any type, and None where one is missing."""
    import wandb

    flat = frame.reset_index() if any(frame.index.names) else frame
    columns = [" ".join(filter(None, map(str, c if isinstance(c, tuple) else (c,)))) for c in flat]
    rows = flat.astype(object).where(flat.notna(), None).to_numpy().tolist()
    return wandb.Table(columns, rows, allow_mixed_types=True)


def save_dashboard(
    project: str, entity: str, tables: Sequence[str], figures: Sequence[str]
) -> None:
    """Save the project's dashboard on the server; where that fails, say why."""
    try:
        view = dashboard(project, entity, tables, figures).save()
        log.info("W&B: dashboard %s", view.url)
    except ImportError:
        log.warning("W&B: no dashboard without wandb-workspaces: pip install -e '.[dashboard]'")
    except Exception as error:
        log.warning("W&B: the dashboard was not saved: %s", first_line(error))
