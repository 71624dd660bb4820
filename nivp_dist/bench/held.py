"""`nivp bench held`: does a run reach the accuracy that it was asked for, from that number and its physics alone?

A case is a problem of the score sheet with its parameters and times, and one accuracy. Everything else (network,
points, solver, steps, fits, refits) is what the settings have by default, or what follows from the accuracy. A case is
a row whose goal is the accuracy and whose must is twice that: it is run, kept and resumed as the rows of the score
sheet are (``bench.accuracy``). A run that fails or takes too long is a finding.
"""

from collections.abc import Callable
from pathlib import Path

import tomli_w

from nivp_dist.bench import accuracy
from nivp_dist.bench.rows import ROWS, Row
from nivp_dist.formatting import MISSING, duration, scientific
from nivp_dist.report.tables import aligned
from nivp_dist.settings.files import read_config
from nivp_dist.settings.model import Config

ACCURACIES = (1e-2, 1e-3, 1e-4)
MINUTES = 10.0  # of wall time, after which a run is stopped with a checkpoint
TOLERATED = 2.0  # times the accuracy asked for


def run(
    names: tuple[str, ...],
    output: str | Path,
    write: Callable[[str], None],
    accuracies: tuple[float, ...] = ACCURACIES,
    minutes: float = MINUTES,
    seeds: int = 1,
    rows: tuple[Row, ...] = ROWS,
) -> dict:
    """Run the problems of the rows of these names (patterns; none: all) at these accuracies.

    Args and what is returned and raised: as ``accuracy.run``. The configuration of a case is OUTPUT/CASE.toml, its run
    directory OUTPUT/CASE. minutes: the limit of a run; one that was stopped by it goes on where the limit is raised.
    """
    folder, selected = accuracy.sheet_folder(output), accuracy.select(names, distinct(rows))
    cases = [case(row, asked, folder, minutes) for row in selected for asked in accuracies]
    return accuracy.run((), folder, write, tuple(cases), seeds, in_words)


def distinct(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The rows without those whose problem, parameters and times are those of a row before."""
    kept: list[tuple[Row, dict]] = []
    for row in rows:
        asked = physics(read_config(row.configuration, row.overrides))
        if asked not in [known for _, known in kept]:
            kept.append((row, asked))
    return tuple(row for row, _ in kept)


def physics(config: Config) -> dict:
    """The tables of a configuration that are no choice of the method: the problem, and the times that are asked for."""
    data = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    kept = {"integrator": ("t_start", "t_end"), "output": ("times", "every")}
    tables = {name: {key: data[name][key] for key in keys if key in data[name]} for name, keys in kept.items()}
    return {"problem": data["problem"]} | tables


def case(row: Row, asked: float, folder: Path, minutes: float) -> Row:
    """The row of a case, after its configuration has been written to the folder."""
    config, name = read_config(row.configuration, row.overrides), f"{row.name}-{asked:g}"
    tables = physics(config)
    tables["output"]["plots"] = False
    path = folder / f"{name}.toml"
    path.write_text(tomli_w.dumps({"accuracy": asked, "seed": config.seed} | tables), "utf-8")
    return Row(name, row.problem, str(path), TOLERATED * asked, asked, minutes, limit=minutes, score="largest")


# Text -------------------------------------------------------------------------------------------


def ratio(entry: dict) -> float | None:
    """The largest error of an entry (of several seeds: the median of these) over the accuracy; None if it failed."""
    return None if entry["error"] is None else entry["error"] / entry["goal"]


def in_words(entry: dict) -> str:
    """An entry in one line."""
    reached = f"largest error {scientific(entry['error'])}, {_cell(entry)} times the accuracy" if entry["error"] else ""
    lost = f"{_lost(entry)}: {entry['failed']}" if entry.get("failed") else ""
    return f"{'; '.join(filter(None, (reached, lost)))}, {duration(entry.get('wall_seconds'))}"


def lines(sheet: dict) -> list[str]:
    """The table for the screen, the reasons of the runs that did not finish, and the tally."""
    lost = [f"{entry['name']}: {entry['failed']}" for entry in sheet["rows"] if entry.get("failed")]
    return aligned(_table(sheet)) + lost + tally(sheet)


def markdown(sheet: dict) -> list[str]:
    """The table in Markdown, and the tally."""
    head, *rows = _table(sheet)
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)] + ["", *tally(sheet)]


def tally(sheet: dict) -> list[str]:
    """For each accuracy, how many problems are held to it, and to twice it; a run that did not finish is not."""
    found = []
    for asked in _accuracies(sheet):
        ratios = [ratio(entry) for entry in sheet["rows"] if entry["goal"] == asked]
        within = [sum(each is not None and each <= bound for each in ratios) for bound in (1.0, TOLERATED)]
        text = f"accuracy {asked:g}: {within[0]} of {len(ratios)} within it, {within[1]} within twice"
        found.append(text + (f"; {missing} did not finish" if (missing := ratios.count(None)) else ""))
    return found


def _table(sheet: dict) -> list[list[str]]:
    """A row of text for each problem: the ratio and the time at every accuracy."""
    accuracies, problems = _accuracies(sheet), dict.fromkeys(entry["problem"] for entry in sheet["rows"])
    entries = {(entry["problem"], entry["goal"]): entry for entry in sheet["rows"]}
    table = [["problem", "t", *(text for asked in accuracies for text in (f"error / {asked:g}", "time"))]]
    for problem in problems:
        of_problem = [entries.get((problem, asked)) for asked in accuracies]
        times = [entry["t"] for entry in of_problem if entry and entry["t"] is not None]
        cells = [text for entry in of_problem for text in _cells(entry)]
        table.append([problem, f"{times[0]:g}" if times else MISSING, *cells])
    return table


def _cells(entry: dict | None) -> tuple[str, str]:
    return (MISSING, MISSING) if entry is None else (_cell(entry), duration(entry.get("wall_seconds")))


def _cell(entry: dict) -> str:
    """The ratio; in brackets that of the worst of several seeds."""
    found = ratio(entry)
    if found is None:
        return _lost(entry)
    if "seeds" not in entry:
        return f"{found:.2g}"
    return f"{found:.2g} ({_lost(entry) if entry['worst'] is None else format(entry['worst'] / entry['goal'], '.2g')})"


def _lost(entry: dict) -> str:
    """What became of a run that did not finish."""
    return "not finished" if entry.get("status") in ("stopped", "running") else "failed"


def _accuracies(sheet: dict) -> list[float]:
    return sorted({entry["goal"] for entry in sheet["rows"]}, reverse=True)
