"""The numbers of a JSON-lines file as columns: eight bytes for each number, where an object of Python takes 60."""

from array import array
from collections.abc import Iterable

import numpy as np


class Columns:
    """Numbers by name, collected from one record after the other.

    names: of columns that are there in any case. A name that a record does not have gets NaN there. A name with a
    value that is no number, in whatever record, has no column.
    """

    def __init__(self, names: Iterable[str] = ()):
        self._rows, self._others = 0, set()
        self._columns = {name: array("d") for name in names}

    def __len__(self) -> int:
        return self._rows

    def append(self, record: dict) -> None:
        """Add the numbers of one record. None counts as NaN."""
        for name in record.keys() - self._columns.keys() - self._others:
            self._columns[name] = array("d", [np.nan]) * self._rows
        for name, column in list(self._columns.items()):
            value = record.get(name)
            if value is None or isinstance(value, (int, float)):
                column.append(np.nan if value is None else value)
            else:
                self._others.add(name)
                del self._columns[name]
        self._rows += 1

    def keep(self, rows: np.ndarray) -> None:
        """Drop all rows but those with these numbers (k,), in their order."""
        self._columns = {name: array("d", values[rows].tobytes()) for name, values in self.arrays().items()}
        self._rows = len(rows)

    def arrays(self) -> dict[str, np.ndarray]:
        """name -> (rows,) float64."""
        return {name: np.array(column, np.float64) for name, column in self._columns.items()}
