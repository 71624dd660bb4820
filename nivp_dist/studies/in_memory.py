"""A run in memory, without files: several seeds of it share the programs, which take longer to compile than to run."""

import math
import time
from dataclasses import dataclass, field

from nivp_dist.cluster.compile_clock import CompileClock
from nivp_dist.errors import RunFailed
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.state import State


class _TooLong(Exception):
    """The time limit of a run is over."""


@dataclass
class Course:
    """What came of a run.

    Attributes:
        fit, error: relative L2 errors against the reference at t = 0 and at t_end; None if not reached.
        lines: the metrics of every accepted step. messages: warnings and findings, each once.
        failure: why it did not reach t_end, or None. t: the time that it reached.
        fit_seconds, seconds: of the fit and of the whole run, without those of compiling.
    """

    fit: float | None = None
    error: float | None = None
    lines: list[dict] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    failure: str | None = None
    t: float = 0.0
    fit_seconds: float | None = None
    seconds: float = 0.0

    def first(self, name: str):
        """That metric of the first step, or None."""
        return self.lines[0][name] if self.lines else None

    def last(self, name: str):
        """That metric of the last step, or None."""
        return self.lines[-1][name] if self.lines else None


def evolve(run: Simulation, seed: int, limit: float = math.inf) -> Course:
    """The initial fit and all steps of a run with that seed, without refits.

    limit: seconds, without those of compiling, after which it is given up. It ends after integrator.max_steps too.
    """
    course, began = Course(), time.monotonic()
    with CompileClock() as compiling:

        def seconds() -> float:
            return time.monotonic() - began - compiling.seconds

        def poll() -> None:
            if seconds() > limit:
                raise _TooLong

        try:
            state = _fitted(run, seed, poll)
            course.fit_seconds = seconds()
            _follow(run, state, course, poll)
        except RunFailed as error:
            course.failure = " ".join(str(error).split())
        except _TooLong:
            course.failure = f"not done in {limit:g} s"
        course.seconds = seconds()
    return course


def _fitted(run: Simulation, seed: int, poll) -> State:
    state = run.begin(seed)
    while not run.fits.is_done(state):
        poll()
        state = run.fits.advance(state)
    return run.fits.finish_initial(state)[0]


def _follow(run: Simulation, state: State, course: Course, poll) -> None:
    """Steps from the end of the fit to t_end. Raises RunFailed, and what poll raises."""
    course.fit, state = run.score(state).relative_l2, run.after_output(state)
    most = run.config.integrator.max_steps
    while not run.output_due(state):
        if state.step == most:
            raise RunFailed(f"{most} steps reached at t = {state.t:.3g}")
        poll()
        accepted = run.step(state, poll)
        state = accepted.state
        course.t = state.t
        course.lines.append(accepted.metrics)
        said = [*accepted.warnings, *accepted.findings]
        course.messages += [message for message in said if message not in course.messages]
    course.error = run.score(state).relative_l2
