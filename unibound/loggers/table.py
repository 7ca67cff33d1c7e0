"""The metrics of a run as a table that any program reads: metrics.csv, a row for each epoch, and result.csv."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unibound import disk

METRICS_TABLE, RESULT_TABLE = "metrics.csv", "result.csv"


class CSV:
    """Keeps metrics.csv and result.csv in the folder of a run, beside its settings and pictures.

    A cell is empty where nothing was measured.
    """

    def begin(self, folder: Path, settings: Mapping[str, Any]) -> None:
        del settings  # in resolved.toml beside
        self._folder = folder
        self._rows: list[dict[str, float]] = []
        self._names: list[str] = []
        (folder / RESULT_TABLE).unlink(missing_ok=True)
        disk.write(folder / METRICS_TABLE, b"")

    def epoch(self, done: int, numbers: Mapping[str, float]) -> None:
        row, path = {"done": done, **numbers}, self._folder / METRICS_TABLE
        self._rows.append(row)
        if new := [name for name in row if name not in self._names]:
            self._names += new
            disk.write(path, _lines([self._names, *map(self._cells, self._rows)]))
        else:
            disk.append(path, _lines([self._cells(row)]))

    def picture(self, done: int, name: str, path: Path) -> None:
        """It lies there already."""

    def conclude(self, done: int, result: Mapping[str, Any]) -> None:
        plain = {name: value for name, value in result.items() if isinstance(value, str | float | int)}
        disk.write(self._folder / RESULT_TABLE, _lines([["name", "value"], ["done", done], *plain.items()]))

    def close(self) -> None:
        pass

    def _cells(self, row: Mapping[str, float]) -> Sequence[Any]:
        return [row.get(name, "") for name in self._names]


def _lines(rows: Iterable[Sequence[Any]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()
