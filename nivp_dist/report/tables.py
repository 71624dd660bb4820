"""Numbers, durations and tables of errors as text. Imports no jax: `nivp status` must answer at once."""

import math

MISSING = "-"


def number(value) -> str:
    """A number for a reader, up to four digits: 0.3125, 1.200e-07, 34; "-" for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, float):
        return f"{value:.4g}" if value == 0 or 1e-2 <= abs(value) < 1e4 else f"{value:.2e}"
    return str(value)


def scientific(value) -> str:
    """An error or a residual: 3.21e-03; "-" for None and NaN."""
    return MISSING if value is None or math.isnan(value) else f"{value:.2e}"


def duration(seconds: float | None) -> str:
    """A length of time for a reader: 42 s, 2 min 13 s, 3 h 05 min, 2 d 4 h."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    seconds = int(round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600} h"


def count(amount: int, noun: str) -> str:
    """1 step, 2 steps."""
    return f"{amount} {noun}" + ("" if amount == 1 else "s")


def has_errors(summary: dict) -> bool:
    """Whether a reference stood behind at least one output."""
    return any(entry.get("relative_l2") is not None for entry in summary.get("errors") or [])


def error_rows(summary: dict, metrics: list[dict] = ()) -> tuple[str, tuple[str, str], list[tuple[str, str]]]:
    """Error against time, or without a reference the residual: (title, column names, rows of text).

    summary: of a run (summary.json). metrics: its steps (metrics.jsonl), for the residual.
    """
    outputs = summary.get("errors") or []
    if has_errors(summary):
        rows = [(number(entry["t"]), scientific(entry.get("relative_l2"))) for entry in outputs]
        return "relative L2 error against the reference", ("t", "relative L2"), rows
    measured = [line for line in metrics if line.get("residual_fresh") is not None and line.get("t") is not None]
    title = "no reference to compare with; relative residual |J v - f| / |f| on fresh points instead"
    rows = [(number(entry["t"]), scientific(_residual_at(entry["t"], measured))) for entry in outputs]
    return title, ("t", "residual"), rows


def error_lines(summary: dict, metrics: list[dict] = ()) -> list[str]:
    """``error_rows`` as aligned plain text."""
    title, columns, rows = error_rows(summary, metrics)
    if not rows:
        return [title, "  (no output yet)"]
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(2)]
    aligned = [[text.rjust(width) for text, width in zip(row, widths)] for row in [columns, *rows]]
    return [title] + ["  " + "  ".join(row) for row in aligned]


def _residual_at(t: float, measured: list[dict]) -> float | None:
    """Of the step that reached t; at the start, of the first step, which measures it there."""
    return min(measured, key=lambda line: abs(line["t"] - t))["residual_fresh"] if measured else None
