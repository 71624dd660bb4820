"""What ended the runs of a record, or kept them from the accuracy asked for: read from their numbers and messages.

A record has lists over the seeds, as ``studies.dimension`` makes them.
"""

import statistics

PARTS = ("initial", "residual", "steps")  # of the estimated error of a run without refits
FEW_POINTS = 2.0  # the ratio of the residual on fresh points to that on those of the step, from which n is too small


def ended_by(record: dict, accuracy: float) -> str | None:
    """What kept the runs of a record from t_end, or from the accuracy asked for; None where nothing did.

    A failure speaks for itself. Of a run that took too long it is said where it was, and of one that is not accurate
    enough which part of its estimated error is the largest.
    """
    if failure := next((failure for failure in record["failure"] if failure), None):
        return _failure(record, record["failure"].index(failure))
    if None in record["error"] or (error := statistics.median(record["error"])) <= accuracy:
        return None
    i = record["error"].index(error) if error in record["error"] else 0
    parts = dict(zip(PARTS, record["parts"][i]))
    largest = max(parts, key=lambda part: parts[part] or 0.0)
    names = {"initial": "the fit", "residual": "the residual", "steps": "the errors of the steps"}
    return f"error {error:.1e}, of which the largest part is {names[largest]}{_of_points(record, i, largest)}"


def _failure(record: dict, i: int) -> str:
    failure, steps = record["failure"][i], record["steps"][i]
    seeds = f" ({sum(each is not None for each in record['failure'])} of {len(record['failure'])} seeds)"
    if not failure.startswith("not done"):
        return f"t = {record['t'][i]:.2g}: {failure}{seeds}"
    if record["fit_seconds"][i] is None:
        return f"{failure}: in the fit{seeds}"
    if not record["velocities"][i]:
        return f"{failure}: in the first step{seeds}"
    cost = record["seconds_a_velocity"][i]
    each = "" if cost is None else f", {cost:.2g} s a velocity"
    return f"{failure}: t = {record['t'][i]:.2g} of {record['t_end']:.2g} after {steps} steps{each}{seeds}"


def _of_points(record: dict, i: int, part: str) -> str:
    own, fresh = record["last_residual"][i], record["last_residual_fresh"][i]
    if part != "residual" or not own:
        return ""
    ratio = fresh / own
    return f", {ratio:.1f} times as large on fresh points" + (": too few points" if ratio > FEW_POINTS else "")


def said(record: dict) -> str:
    """The warnings and findings of its runs, of each what stands before the first colon."""
    return ", ".join(dict.fromkeys(message.split(":")[0] for run in record["messages"] for message in run))
