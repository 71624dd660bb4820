"""Tables of errors as rows of text. Imports no jax: `nivp status` must answer at once."""

import math

from nivp_dist.formatting import MISSING, number, scientific


def has_errors(summary: dict) -> bool:
    """Whether a reference stood behind at least one output."""
    return any(entry.get("relative_l2") is not None for entry in summary.get("errors") or [])


def error_rows(summary: dict, metrics: list[dict] = ()) -> tuple[str, list[str], list[list[str]]]:
    """Error, the run's own estimate and the drift of conserved integrals against time; without a reference the residual
    for the error: (title, column names, rows of text).

    summary: of a run (summary.json). metrics: its steps (metrics.jsonl), for the residual.
    """
    outputs = summary.get("errors") or []
    title = "relative L2 error against the reference"
    columns = {"t": [number(entry["t"]) for entry in outputs]}
    if has_errors(summary):
        columns["relative L2"] = [scientific(entry.get("relative_l2")) for entry in outputs]
    else:
        measured = [line for line in metrics if line.get("residual_fresh") is not None and line.get("t") is not None]
        title = "no reference to compare with; relative residual |J v - f| / |f| on fresh points instead"
        columns["residual"] = [scientific(_residual_at(entry["t"], measured)) for entry in outputs]
    if any(entry.get("estimate") is not None for entry in outputs):
        columns["estimate"] = [scientific(entry.get("estimate")) for entry in outputs]
    for name in dict.fromkeys(name for entry in outputs for name in entry.get("invariants") or {}):
        columns[f"drift of {name}"] = [drift_text(drift(outputs[0], entry, name)) for entry in outputs]
    return title, list(columns), [list(row) for row in zip(*columns.values())]


def drift(first: dict, entry: dict, name: str) -> tuple[float, float] | None:
    """Relative change of a conserved integral since the first output, and its standard error; None if not known.

    An entry's invariants: name -> (integral, standard error).
    """
    start, now = ((output.get("invariants") or {}).get(name) for output in (first, entry))
    if not start or not now or not start[0] or None in (*start, *now):
        return None
    return (now[0] - start[0]) / abs(start[0]), math.hypot(start[1], now[1]) / abs(start[0])


def drift_text(change: tuple[float, float] | None) -> str:
    """-1.2e-04 +- 3e-04."""
    return MISSING if change is None else f"{change[0]:+.1e} +- {change[1]:.0e}"


def error_lines(summary: dict, metrics: list[dict] = ()) -> list[str]:
    """``error_rows`` as aligned plain text."""
    title, columns, rows = error_rows(summary, metrics)
    return [title] + ([f"  {line}" for line in aligned([columns, *rows])] if rows else ["  (no output yet)"])


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows of text as lines, every column aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(text.rjust(width) for text, width in zip(row, widths)) for row in rows]


def _residual_at(t: float, measured: list[dict]) -> float | None:
    """Of the step that reached t; at the start, of the first step, which measures it there."""
    return min(measured, key=lambda line: abs(line["t"] - t))["residual_fresh"] if measured else None
