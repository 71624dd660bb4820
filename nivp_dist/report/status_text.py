"""The status of a run as text: a table of lines for `nivp status`, one line for `nivp status --watch` in a log."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nivp_dist.formatting import count, duration, number, scientific
from nivp_dist.report.status import read_status
from nivp_dist.report.tables import has_errors
from nivp_dist.storage.metrics import RECORDED
from nivp_dist.storage.run_directory import resume_command

Facts = dict[str, Any]  # as read_status returns them
Row = tuple[str, str]
SHOWN_LAYERS = 3  # with the largest shares in the eigenvectors below mu
OUTPUTS_SHOWN = 10  # of the outputs with a known error: more would push the rest off the screen


def status_text(directory: str | Path, as_json: bool = False) -> str:
    """The status of the run in a directory, for a reader or as JSON; for a reader with the command that resumes it.

    Raises InputError as ``read_status``.
    """
    facts = read_status(directory)
    if as_json:
        return json.dumps(facts, indent=2)
    lines = status_lines(facts)
    if facts["status"] in ("interrupted", "stopped", "event", "failed") and facts["checkpoint"]:
        lines.append(f"to go on: {resume_command(directory, facts['summary'].get('session_class'))}")
    return "\n".join(lines)


def status_lines(facts: Facts) -> list[str]:
    """The facts of ``read_status`` as lines of aligned text, one fact a line."""
    rows = [*_place_rows(facts), *_step_rows(facts), *_error_rows(facts)]
    rows += [event_row(event) for event in facts["events"]]
    rows += [event_row(event) for event in facts["warnings"] if event not in facts["events"]]
    width = max(len(name) for name, _ in rows)
    return [f"{name.ljust(width)}  {text}" for name, text in rows]


def status_line(facts: Facts) -> str:
    """The most important facts in one line."""
    summary, last = facts["summary"], facts["last_step"]
    parts = [facts["status"]] + ([summary["phase"]] if facts["status"] == "running" else [])
    if facts["t"] is not None:
        parts.append(f"t {number(facts['t'])} of {number(summary.get('t_end'))}")
    parts += [f"step {last['step']}"] if "step" in last else []
    parts += (
        [f"t advances by {number(facts['rate_per_hour'])} in an hour"] if facts["rate_per_hour"] is not None else []
    )
    parts += [f"until {_date(facts['ends_at'])}"] if facts["ends_at"] is not None else []
    parts += [f"checkpoint {facts['checkpoint']['transitions']}"] if facts["checkpoint"] else []
    return "  ".join(parts)


def event_row(event: dict) -> Row:
    """The kind of an event, and its step and message."""
    place = f"step {event['step']}: " if event.get("step") is not None else ""
    return str(event.get("kind", "event")), f"{place}{event.get('message', '')}"


def _place_rows(facts: Facts) -> list[Row]:
    """Whether and where the run is computed, and how far it is."""
    summary, beat = facts["summary"], facts["heartbeat"]
    rows = [("status", facts["status"] + (f": {summary['message']}" if summary.get("message") else ""))]
    if facts["status"] in ("starting", "running", "interrupted") and beat:
        rows.append(("where", f"{beat['holder']}, last sign of life {_ago(beat)}"))
    rows += _row("problem", summary.get("problem"))
    if facts["status"] != "finished":
        rows += _row("phase", summary.get("phase"))
    rows += _row("t", facts["t"], lambda t: f"{number(t)} of {number(summary.get('t_end'))}")
    rows += _row("speed", facts["rate_per_hour"], lambda rate: f"t advances by {number(rate)} in an hour")
    rows += _row("left", facts["seconds_left"], lambda left: f"{duration(left)}, until {_date(facts['ends_at'])}")
    rows += _row("checkpoint", facts["checkpoint"], _checkpoint)
    if summary:
        rows.append(("resumed", f"{count(facts['resumes'], 'time')}, from a checkpoint"))
        rows.append(("refits", f"{facts['refits']} (a fresh network fitted to the solution reached)"))
    requeued = f", queued again {count(facts['requeues'], 'time')}" if facts["requeues"] else ""
    return rows + _row("job", facts["job"], lambda job: f"{job}{requeued}")


def _step_rows(facts: Facts) -> list[Row]:
    """The last step, and the sizes of the computation."""
    summary, last = facts["summary"], facts["last_step"]
    rows = _row("step size h", last.get("h"))
    rows += _row("order of the last step", last.get("order"))
    rows += _row("h rho, last step", last.get("h_rho"), lambda h_rho: number(h_rho) + _limit(last))
    rows += _row("motion of theta in it", last.get("theta_step"), lambda motion: number(motion) + _norm(last))
    rows += _row("residual", last.get("residual"), scientific)
    rows += _row("residual, fresh points", last.get("residual_fresh"), scientific)
    rows += _row("CG iterations, last step", last.get("cg_iterations"))
    for name, value in last.items():
        if name.startswith(RECORDED):
            rows += _row(f"{name.removeprefix(RECORDED)}, by a callback", value)
    rows += _spectrum_rows(facts)
    rows += _row("accepted steps", last.get("step", summary.get("steps")))
    rows += _row("rejected steps", summary.get("rejected"))
    for name in ("parameters", "points", "devices", "processes"):
        rows += _row(name, summary.get(name))
    return rows + _row("wall time", last.get("wall_seconds", summary.get("wall_seconds")), duration)


def _spectrum_rows(facts: Facts) -> list[Row]:
    """The spectrum of M as it was measured last, and the conditioning of the linear system."""
    found = facts.get("last_spectrum") or {}
    of_all = _of(facts["summary"].get("parameters"))
    error = found.get("effective_dimension_error")
    about = "" if error is None else f" +- {error:.0f}"
    rows = _row("effective dimension", found.get("effective_dimension"), lambda d: f"{d:.0f}{about}{of_all}")
    rows += _row("eigenvalues above mu", found.get("numerical_rank"), lambda rank: f"{number(rank)}{of_all}")
    preconditioned = found.get("condition_preconditioned")
    better = "" if preconditioned is None else f", preconditioned {scientific(preconditioned)}"
    rows += _row("condition", found.get("condition"), lambda condition: scientific(condition) + better)
    rows += _row(
        "bound of CG iterations", found.get("cg_iterations_bound"), lambda bound: f"{bound} at the start of a step"
    )
    rows += _row("share of F below mu", found.get("rhs_below_mu"), scientific)
    names = [name for name in found if name.startswith("small_share_") and name != "small_share_error"]
    if names:
        most = sorted(names, key=lambda name: -found[name])[:SHOWN_LAYERS]
        shares = [f"{name.removeprefix('small_share_')} {100 * found[name]:.0f} %" for name in most]
        rows.append(("layers below mu", ", ".join(shares)))
    when = f"at step {found.get('step')}, "
    return rows + _row("spectrum measured", found.get("spectrum_seconds"), lambda seconds: f"{when}in {seconds:.3g} s")


def _of(total) -> str:
    return "" if total is None else f" of {number(total)}"


def _error_rows(facts: Facts) -> list[Row]:
    """The errors at the last outputs; without a reference, the estimate of the last step."""
    summary, rows = facts["summary"], []
    known = [entry for entry in summary.get("errors") or [] if entry.get("relative_l2") is not None]
    if len(known) > OUTPUTS_SHOWN:
        rows.append(("outputs", f"{len(known)}; the last {OUTPUTS_SHOWN} are shown here, all of them by --json"))
    for entry in known[-OUTPUTS_SHOWN:]:
        estimate = entry.get("estimate")
        estimated = f", estimated {scientific(estimate)}" if estimate is not None else ""
        rows.append((f"error at t = {number(entry['t'])}", scientific(entry["relative_l2"]) + estimated))
    if summary.get("errors") and not has_errors(summary):
        rows += _row("estimated error", facts["last_step"].get("estimate"), scientific)
    return rows


def _row(name: str, value: Any, form: Callable[[Any], str] = number) -> list[Row]:
    """A row, or none if the value is not known."""
    return [] if value is None else [(name, form(value))]


def _limit(last: Facts) -> str:
    limit = last.get("h_rho_limit")
    return "" if limit is None else f", stable up to {number(limit)}"


def _norm(last: Facts) -> str:
    norm = last.get("theta_norm")
    return "" if norm is None else f", of a norm of {number(norm)}"


def _ago(facts: Facts) -> str:
    return f"{duration(max(facts['age_seconds'], 0.0))} ago"


def _date(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def _checkpoint(checkpoint: Facts) -> str:
    place = ""
    if checkpoint["step"] is not None:
        place = f" (step {checkpoint['step']}, t = {number(checkpoint['t'])})"
    return f"number {checkpoint['transitions']}{place}, {_ago(checkpoint)}"
