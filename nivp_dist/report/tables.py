"""Tables of a run as text: its errors, and where it stands. Imports no jax: `nivp status` must answer at once."""

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


def status_lines(summary: dict | None, last_metrics: dict | None, events: list[dict]) -> list[str]:
    """Where a run stands, as aligned plain text, one line a fact.

    summary: summary.json or None before there is one. last_metrics: the last line of metrics.jsonl or None.
    events: the latest of events.jsonl, in order; all of those given are shown.
    """
    summary, last = summary or {}, last_metrics or {}
    message = f": {summary['message']}" if summary.get("message") else ""
    facts = [("status", summary.get("status", "not started") + message)]

    def add(name: str, key: str, text=number, newest: bool = False):
        value = last.get(key) if newest and last.get(key) is not None else summary.get(key)
        if value is not None:
            facts.append((name, text(value)))

    add("problem", "problem")
    if summary.get("status") != "finished":
        add("phase", "phase")
    add("t", "t", newest=True)
    add("t_end", "t_end")
    add("step size h", "h", newest=True)
    add("residual", "residual", scientific, newest=True)
    add("residual, fresh points", "residual_fresh", scientific, newest=True)
    if last:  # the summary's count is that of the whole run
        add("CG iterations, last step", "cg_iterations", newest=True)
    add("accepted steps", "steps")
    add("rejected steps", "rejected")
    add("refits", "refits")
    add("parameters", "parameters")
    add("points", "points")
    add("devices", "devices")
    add("processes", "processes")
    add("wall time", "wall_seconds", duration)
    for entry in summary.get("errors") or []:
        if entry.get("relative_l2") is not None:
            facts.append((f"error at t = {number(entry['t'])}", scientific(entry["relative_l2"])))
    for event in events:
        place = f"step {event['step']}: " if event.get("step") is not None else ""
        facts.append((str(event.get("kind", "event")), f"{place}{event.get('message', '')}"))
    width = max(len(name) for name, _ in facts)
    return [f"{name.ljust(width)}  {text}" for name, text in facts]


def _residual_at(t: float, measured: list[dict]) -> float | None:
    """Of the step that reached t; at the start, of the first step, which measures it there."""
    return min(measured, key=lambda line: abs(line["t"] - t))["residual_fresh"] if measured else None
