"""Tables of errors as rows of text. Imports no jax, so that `nivp status` answers at once."""

import math
from collections.abc import Iterable

from nivp_dist.formatting import MISSING, number, scientific

# Further errors of densities, by their names in summary.json, with the heads of their columns.
OF_DENSITIES = {"relative_l2_normalised": "normalised", "relative_l2_unweighted": "unweighted", "kl": "KL"}
MOST_ROWS = 24  # of the table of outputs, which is to fit on a screen


def has_errors(summary: dict) -> bool:
    """Whether the error against a reference is known for at least one output."""
    return any(entry.get("relative_l2") is not None for entry in summary.get("errors") or [])


def error_rows(summary: dict, metrics: Iterable[dict] = ()) -> tuple[str, list[str], list[list[str]]]:
    """The table of the outputs: (title, column names, rows of text).

    Columns: t, the relative L2 error (the relative residual where no reference is known), of densities further errors
    (OF_DENSITIES), the run's estimate of the error and the bound, and the drift of every conserved integral. Of more
    than MOST_ROWS outputs so many are shown, evenly spread, the first and the last among them.

    summary: the content of summary.json. metrics: the lines of metrics.jsonl, read once and only for the residual.
    """
    every = summary.get("errors") or []
    outputs = _spread(every)
    shown = f" ({len(outputs)} of {len(every)} outputs)" if len(outputs) < len(every) else ""
    title = f"relative L2 error{_compared(summary)} against the reference"
    columns = {"t": [number(entry["t"]) for entry in outputs]}
    if has_errors(summary):
        columns["relative L2"] = [scientific(entry.get("relative_l2")) for entry in outputs]
        for name in (name for name in OF_DENSITIES if any(name in entry for entry in outputs)):
            columns[OF_DENSITIES[name]] = [scientific(entry.get(name)) for entry in outputs]
    else:
        title = "no reference to compare with; relative residual |J v - f| / |f| on fresh points instead"
        residuals = _residuals_at([entry["t"] for entry in outputs], metrics)
        columns["residual"] = [scientific(residual) for residual in residuals]
    if any(entry.get("estimate") is not None for entry in outputs):
        columns["estimate"] = [scientific(entry.get("estimate")) for entry in outputs]
        columns["bound"] = [scientific(entry.get("estimate_bound")) for entry in outputs]
    for name in dict.fromkeys(name for entry in outputs for name in entry.get("invariants") or {}):
        columns[f"drift of {name}"] = [drift_text(drift(outputs[0], entry, name)) for entry in outputs]
    return title + shown, list(columns), [list(row) for row in zip(*columns.values())]


def _spread(outputs: list[dict]) -> list[dict]:
    """At most MOST_ROWS of the outputs, evenly spread, the first and the last among them."""
    if len(outputs) <= MOST_ROWS:
        return outputs
    return [outputs[round(i * (len(outputs) - 1) / (MOST_ROWS - 1))] for i in range(MOST_ROWS)]


def _compared(summary: dict) -> str:
    """Which outputs the errors are those of, where the reference does not give all."""
    names = summary.get("output_names") or []
    compared = max((entry.get("compared_outputs") or 0 for entry in summary.get("errors") or []), default=0)
    return (
        f" of {', '.join(names[:compared])} (not of {', '.join(names[compared:])})" if 0 < compared < len(names) else ""
    )


def drift(first: dict, entry: dict, name: str) -> tuple[float, float] | None:
    """Relative change of a conserved integral since the first output, and its standard error; None if not known.

    first, entry: entries of the summary's "errors", whose "invariants" are name -> (integral, standard error).
    """
    start, now = ((output.get("invariants") or {}).get(name) for output in (first, entry))
    if not start or not now or not start[0] or None in (*start, *now):
        return None
    return (now[0] - start[0]) / abs(start[0]), math.hypot(start[1], now[1]) / abs(start[0])


def drift_text(change: tuple[float, float] | None) -> str:
    """A drift and its standard error: -1.2e-04 +- 3e-04."""
    return MISSING if change is None else f"{change[0]:+.1e} +- {change[1]:.0e}"


def error_lines(summary: dict, metrics: Iterable[dict] = ()) -> list[str]:
    """The table of ``error_rows`` as lines of aligned text."""
    title, columns, rows = error_rows(summary, metrics)
    return [title] + ([f"  {line}" for line in aligned([columns, *rows])] if rows else ["  (no output yet)"])


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows of text as lines, every column aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(text.rjust(width) for text, width in zip(row, widths)) for row in rows]


def _residuals_at(times: list[float], metrics: Iterable[dict]) -> list[float | None]:
    """The residuals of the steps that ended nearest to these times; at the start that of the first step.

    times: in order, as are the lines, of which two are in memory at a time.
    """
    found: list[float | None] = []
    before = None
    for line in metrics:
        if line.get("residual_fresh") is None or line.get("t") is None:
            continue
        while len(found) < len(times) and times[len(found)] <= line["t"]:
            t = times[len(found)]
            nearer = line if before is None or line["t"] - t < t - before["t"] else before
            found.append(nearer["residual_fresh"])
        before = line
    last = None if before is None else before["residual_fresh"]
    return found + [last] * (len(times) - len(found))
