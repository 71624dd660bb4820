"""The score sheet as text: verdicts, the table of the screen, and that of the guide."""

from nivp_dist.bench.rows import Row
from nivp_dist.formatting import MISSING, duration, scientific
from nivp_dist.report.tables import aligned

# "worst" is the largest error of several seeds, and left out where every row has one.
COLUMNS = ("problem", "t", "error", "worst", "time", "evaluations", "must", "goal", "met", "estimate", "bound")
MARKDOWN_COLUMNS = ("problem", "t", "error", "worst", "bound", "time", "evaluations", "must", "goal", "met")


def verdict(row: Row, entry: dict) -> str:
    """The best bound that the error meets: goal, must or no, or "-" for a row without bounds.

    With several seeds it is their median that meets a goal, and all of them have to meet the must.
    ", late" follows if the run took longer than the minutes of the row.
    """
    error = entry.get("error")

    def meets(bound: float | None) -> bool:
        return error is not None and bound is not None and error <= bound

    if row.must is not None and (worst := entry.get("worst", error)) is not None and worst > row.must:
        error = worst
    met = "goal" if meets(row.goal) else "must" if meets(row.must) else "no"
    met = MISSING if row.must is None and row.goal is None else met
    late = (entry.get("wall_seconds") or 0.0) > 60 * row.minutes
    return met + (", late" if late else "")


def cells(entry: dict) -> dict[str, str]:
    """The columns of an entry as text."""
    evaluations = entry.get("velocity_evaluations")
    return {
        "problem": entry["problem"],
        "t": _short(entry.get("t")),
        "error": scientific(entry.get("error")),
        "worst": scientific(entry.get("worst")),
        "time": duration(entry.get("wall_seconds")),
        "evaluations": MISSING if evaluations is None else str(evaluations),
        "must": _short(entry["must"]),
        "goal": _short(entry["goal"]),
        "met": f"failed: {entry['failed']}" if entry.get("failed") else entry["met"],
        "estimate": scientific(entry.get("estimate")),
        "bound": scientific(entry.get("bound")),
    }


def lines(sheet: dict) -> list[str]:
    """The table for the screen, then the reasons of failures, and the number of bounds that are met."""
    rows, columns = [], _columns(sheet, COLUMNS)
    for entry in sheet["rows"]:
        texts = cells(entry)
        rows.append(["failed" if texts[name].startswith("failed") else texts[name] for name in columns])
    failures = [f"{entry['name']} failed: {entry['failed']}" for entry in sheet["rows"] if entry.get("failed")]
    return aligned([columns, *rows]) + failures + [tally(sheet)]


def tally(sheet: dict) -> str:
    """How many bounds are met, each within the time of its row."""
    musts, goals = ([entry["met"] for entry in sheet["rows"] if entry[bound] is not None] for bound in ("must", "goal"))
    met = sum(text in ("must", "goal") for text in musts)
    return f"{met} of {len(musts)} must, {goals.count('goal')} of {len(goals)} goals"


def markdown(sheet: dict) -> list[str]:
    """The table in Markdown, each problem with the arguments of the command that reproduces its row."""
    columns = _columns(sheet, MARKDOWN_COLUMNS)
    rows = [columns, ["---"] * len(columns)]
    for entry in sheet["rows"]:
        arguments = entry["command"].removeprefix("nivp run ")
        texts = cells(entry) | {"problem": f"{entry['problem']} (`{arguments}`)"}
        rows.append([texts[name] for name in columns])
    return [f"| {' | '.join(row)} |" for row in rows]


def in_words(entry: dict) -> str:
    """An entry in one line."""
    if entry.get("failed"):
        return f"failed: {entry['failed']}"
    error, estimate = scientific(entry["error"]), scientific(entry["estimate"])
    return f"error {error}, estimated {estimate}, {duration(entry['wall_seconds'])}: {entry['met']}"


def _columns(sheet: dict, names: tuple[str, ...]) -> list[str]:
    several = any("seeds" in entry for entry in sheet["rows"])
    return [name for name in names if several or name != "worst"]


def _short(value: float | None) -> str:
    return MISSING if value is None else f"{value:g}"
