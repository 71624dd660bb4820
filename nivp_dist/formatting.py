"""Numbers, durations and errors as text for a reader. Imports no jax, so that `nivp status` appears at once."""

import math

MISSING = "-"


def number(value: object) -> str:
    """A number with up to four digits: 0.3125, 1.20e-07, 34; "-" for None and NaN, other values as str."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, float):
        return f"{value:.4g}" if value == 0.0 or 1e-2 <= abs(value) < 1e4 else f"{value:.2e}"
    return str(value)


def scientific(value: float | None) -> str:
    """An error or a residual, such as 3.21e-03; "-" for None and NaN."""
    return MISSING if value is None or math.isnan(value) else f"{value:.2e}"


def duration(seconds: float | None) -> str:
    """A duration such as 42 s, 2 min 13 s, 3 h 05 min, 2 d 4 h; "-" for None and infinities."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600} h"


def count(amount: int, noun: str) -> str:
    """A number with its noun: 1 step, 2 steps."""
    return f"{amount} {noun}" + ("" if amount == 1 else "s")


def size(count: float) -> str:
    """Bytes with three digits: 81.3 kB, 2.04 MB, 151 GB."""
    unit = "GB" if count >= 1e9 else "MB" if count >= 1e6 else "kB"
    return f"{count / {'GB': 1e9, 'MB': 1e6, 'kB': 1e3}[unit]:.3g} {unit}"


def describe_error(relative_l2: float | None, estimate: float | None) -> str:
    """The error at an output in words: against the reference where there is one, and as the run estimates it."""
    known = scientific(relative_l2) != MISSING
    text = f"relative L2 error {scientific(relative_l2)}" if known else "no reference"
    if scientific(estimate) == MISSING:
        return text
    return f"{text}, estimated {'' if known else 'relative error '}{scientific(estimate)}"
