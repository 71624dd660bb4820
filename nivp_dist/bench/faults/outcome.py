"""What becomes of a run after a fault, and how far that is the undisturbed run, bit for bit."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from nivp_dist.run.history import missing_steps, times
from nivp_dist.storage import run_directory, snapshots
from nivp_dist.storage.metrics import EVENTS, METRICS, read_lines

SAME = "same"  # the run ended, perhaps after resumes, with the bits of the undisturbed run
SAID = "said"  # one line names what is lost or refused, and everything that it does not name is the same
CHANGED = "CHANGED"  # the run ended with other results
LOST = "LOST"  # results are missing and no line says so, or the run cannot go on though it could
ENDED = "ENDED"  # a fault that must not end a run has ended it, or it ended without the line that says why
HANG = "HANG"  # a run, or a process of it, did not end
TRACEBACK = "TRACEBACK"  # a traceback in place of a line
GOOD = (SAME, SAID)

COMPUTED = ("fit", "refit", "output", "finish")  # kinds of the events that the computation makes, not its interruptions
TIMES = ("wall_seconds", "spectrum_seconds")  # entries of metrics that are no results
MEASURED = ("wall_seconds", "compile_seconds", "versions")  # entries of a summary that are no results
# What a message of a resume has to contain if a file is no longer what the run had written.
NOT_AS_WRITTEN, OTHER_SETTINGS = "{} is not what the run had written", "other settings: "


class Outcome(NamedTuple):
    """verdict: one of the above. what: the fault in words. line: the last message about it, or what is wrong."""

    verdict: str
    what: str
    line: str = ""

    @property
    def good(self) -> bool:
        return self.verdict in GOOD


class Results(NamedTuple):
    """All that a run has computed.

    snapshots: t -> array name -> (dtype, shape, bytes). metrics: step -> lines without the wall time. events: (step, t,
    kind, message). errors: t -> entry of the summary. summary: its other entries.
    """

    snapshots: dict[float, dict]
    metrics: dict[int, list[dict]]
    events: list[tuple]
    errors: dict[float, dict]
    summary: dict


def read(directory: Path) -> Results:
    """The results of a finished run. Raises ValueError, OSError or InputError if its files cannot be read."""
    stored = {entry.t: snapshots.load(entry.path) for entry in snapshots.list_snapshots(directory)}
    exact = {
        t: {name: (value.dtype.str, value.shape, value.tobytes()) for name, value in arrays.items()}
        for t, arrays in stored.items()
    }
    metrics: dict[int, list[dict]] = {}
    for line in read_lines(directory / METRICS):
        metrics.setdefault(line["step"], []).append({key: value for key, value in line.items() if key not in TIMES})
    events = [
        tuple(line.get(key) for key in ("step", "t", "kind", "message"))
        for line in read_lines(directory / EVENTS)
        if line["kind"] in COMPUTED
    ]
    summary = dict(run_directory.read_summary(directory) or {})
    errors = {entry["t"]: entry for entry in summary.pop("errors", [])}
    return Results(exact, metrics, events, errors, {key: summary[key] for key in summary.keys() - MEASURED})


def compare(wanted: Results, found: Results, messages: Iterable[str]) -> tuple[str, str]:
    """The verdict on a run that has finished: SAME, SAID, CHANGED or LOST, and what decides it.

    wanted: the undisturbed run. messages: what the run has said at its resumes.
    """
    text = "\n".join(messages)
    if "output.evaluation_points" in text.partition(OTHER_SETTINGS)[2]:  # other errors, of the same solution
        wanted, found = _without_errors(wanted), _without_errors(found)
    differences = [*_of_snapshots(wanted, found, text), *_of_metrics(wanted, found, text)]
    if found.events != wanted.events:
        differences.append((SAID if NOT_AS_WRITTEN.format(EVENTS) in text else LOST, "events"))
    if found.summary != wanted.summary:
        names = [name for name in sorted(wanted.summary) if found.summary.get(name) != wanted.summary[name]]
        differences.append((CHANGED, f"summary: {', '.join(names) or 'more entries'}"))
    for verdict in (CHANGED, LOST, SAID):
        if what := [difference for kind, difference in differences if kind == verdict]:
            return verdict, ", ".join(what)
    return SAME, ""


def _of_snapshots(wanted: Results, found: Results, text: str) -> Iterator[tuple[str, str]]:
    """The differences in snapshots and in their errors, each with its verdict."""
    gone = sorted(wanted.snapshots.keys() - found.snapshots.keys())
    if gone:
        named = f"the snapshots of {times(gone)} are gone" in text
        named = named or "output.times" in text.partition(OTHER_SETTINGS)[2]
        yield SAID if named else LOST, f"snapshots of {times(gone)}"
    for name, before, now in (
        ("snapshots", wanted.snapshots, found.snapshots),
        ("errors in the summary", wanted.errors, found.errors),
    ):
        if now != {t: value for t, value in before.items() if t not in gone}:
            yield CHANGED, name


def _of_metrics(wanted: Results, found: Results, text: str) -> Iterator[tuple[str, str]]:
    """The differences in the lines of the metrics, each with its verdict."""
    steps = missing_steps([{"step": step} for step in found.metrics], max(wanted.metrics))
    if steps:
        yield SAID if f"the lines of {steps} are gone" in text else LOST, f"metrics of {steps}"
    if any(lines != wanted.metrics.get(step) for step, lines in found.metrics.items()):
        named = NOT_AS_WRITTEN.format(METRICS) in text and "changed" in text
        yield SAID if named else CHANGED, "numbers in the metrics"


def _without_errors(results: Results) -> Results:
    """The results without what depends on the points at which errors are measured."""
    theta = {t: {"theta": arrays["theta"]} for t, arrays in results.snapshots.items()}
    return results._replace(snapshots=theta, errors={key: {} for key in results.errors}, events=[])


def messages_of(directory: Path) -> list[str]:
    """What a run has said at its resumes, from events.jsonl; lines that are no JSON are passed over."""
    found = []
    try:
        content = (directory / EVENTS).read_text("utf-8", "replace")
    except OSError:
        return []
    for line in content.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("kind") in ("warning", "environment", "resume"):
            found.append(str(event.get("message")))
    return found
