"""A model under one protocol with all that is stored of it: what one block of a table shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from nsvd_exp.config.checks import shown
from nsvd_exp.experiment.improvement import calibration_sets
from nsvd_exp.report.model.agreement import (
    Agreement,
    agrees,
    cell_agreement,
    differences,
    merged,
)
from nsvd_exp.report.model.measurements import Measurement
from nsvd_exp.report.model.methods import ShownMethod, form_of, row_of, shown_method
from nsvd_exp.report.model.paper import Row
from nsvd_exp.storage.results import Result


@dataclass
class Setting:
    """A model under one protocol, and all that is stored of it.

    Attributes:
        agreement: what its measurements agree in.
        cells: of its methods, whatever their status.
    """

    agreement: Agreement
    measurements: list[Measurement]
    cells: list[Result]

    def at(self, row: Row, dataset: str) -> list[Measurement]:
        """The measurements at one place of a table, one per calibration seed, newest first."""
        return self._by_place.get((row, dataset), [])

    def cells_at(self, row: Row) -> list[Result]:
        """The cells of one row, one per calibration seed."""
        return self._cells_by_row.get(row, [])

    @cached_property
    def rows(self) -> list[Row]:
        """The rows of which anything is stored: by ratio, in the order of the methods."""
        return sorted(self._cells_by_row, key=self._place)

    def _place(self, row: Row) -> tuple[float, tuple[float, str, str], float]:
        return row.ratio or 0.0, self.methods[row.method].place, -(row.k1 or 0.0)

    @cached_property
    def calibrated_on(self) -> list[str]:
        """The datasets that its calibration took samples from."""
        found = [calibration_sets(cell["config"].get("calibration")) for cell in self.cells]
        return sorted({name for names in found for name in names})

    @cached_property
    def methods(self) -> dict[str, ShownMethod]:
        """How each stored method is shown, as rows name it."""
        by_method: dict[str, list[Result]] = {}
        for cell in self.cells:
            by_method.setdefault(row_of(cell).method, []).append(cell)
        return {
            name: shown_method(cells[0]["method"], cells, form_of(cells[0]))
            for name, cells in by_method.items()
        }

    @cached_property
    def dataset_titles(self) -> dict[str, str]:
        """The title of each dataset that was measured, by name."""
        titles = {}
        for measurement in self.measurements:
            name = measurement.dataset
            config = measurement.cell["config"]["dataset"].get(name, {})
            titles[name] = config.get("title", name)
        return {name: shown(title) for name, title in titles.items()}

    @cached_property
    def _by_place(self) -> dict[tuple[Row, str], list[Measurement]]:
        places: dict[tuple[Row, str], list[Measurement]] = {}
        for m in sorted(self.measurements, key=lambda m: m.stored["measured"], reverse=True):
            places.setdefault((m.row, m.dataset), []).append(m)
        return places

    @cached_property
    def _cells_by_row(self) -> dict[Row, list[Result]]:
        rows: dict[Row, list[Result]] = {}
        for cell in self.cells:
            rows.setdefault(row_of(cell), []).append(cell)
        return rows

    @property
    def newest(self) -> str:
        """When the last measurement was made, UTC."""
        return max((m.stored["measured"] for m in self.measurements), default="")

    def differences(self, other: Setting) -> list[str]:
        """Where this setting differs from `other`, in words."""
        return differences(self.agreement, other.agreement)


def settings_of(cells: Iterable[Result], measurements: Iterable[Measurement]) -> list[Setting]:
    """The settings of one model: the one with most measurements first, then the newest.

    A measurement that leaves something open (`dense` has no calibration) belongs to every setting
    that it agrees with.
    """
    measurements = list(measurements)
    by_cell = [(cell_agreement(cell), cell) for cell in cells]
    seen = [m.agreement for m in measurements] + [agreement for agreement, _ in by_cell]
    settings = [
        Setting(
            agreement,
            [m for m in measurements if agrees(m.agreement, agreement)],
            [cell for own, cell in by_cell if agrees(own, agreement)],
        )
        for agreement in merged(seen)
    ]
    return sorted(settings, key=lambda s: (len(s.measurements), s.newest), reverse=True)
