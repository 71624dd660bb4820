"""The results of a family of runs as a table of text and as JSON."""

import json
from collections.abc import Callable
from pathlib import Path

from nivp_dist.formatting import MISSING, duration, number, scientific
from nivp_dist.storage.files import write_whole
from nivp_dist.storage.metrics import plain
from nivp_dist.studies.family import Result

TABLE = "sweep.json"
# Column -> the text of a summary's numbers.
COLUMNS: dict[str, Callable[[dict], str]] = {
    "error": lambda numbers: scientific(numbers.get("error")),
    "estimate": lambda numbers: scientific(numbers.get("estimate")),
    "t": lambda numbers: number(numbers.get("t")),
    "steps": lambda numbers: number(numbers.get("steps")),
    "evaluations": lambda numbers: number(numbers.get("velocity_evaluations")),
    "refits": lambda numbers: number(numbers.get("refits")),
    "p": lambda numbers: number(numbers.get("parameters")),
    "time": lambda numbers: duration(numbers.get("wall_seconds")),
    "status": lambda numbers: numbers.get("status", MISSING),
}


def rows(results: list[Result]) -> list[list[str]]:
    """The names of the columns, and a row for each run: the settings that differ, then what came of them."""
    keys = list(results[0].values)
    head = ["run", *keys, *COLUMNS]
    return [head] + [
        [result.directory.name, *result.values.values(), *(text(result.numbers) for text in COLUMNS.values())]
        for result in results
    ]


def write_json(directory: Path, results: list[Result]) -> None:
    """sweep.json in the directory of the family: a list with "run", "settings" and the numbers of every run."""
    entries = [{"run": result.directory.name, "settings": result.values} | plain(result.numbers) for result in results]
    write_whole(directory / TABLE, json.dumps(entries, indent=1, allow_nan=False) + "\n")
