"""A run in memory, without files: several seeds of it share the programs, which take longer to compile than to run."""

import math
import time
from dataclasses import dataclass, field

import jax

from nivp_dist.cluster.compile_clock import CompileClock
from nivp_dist.errors import RunFailed
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.state import FINISHED, State

COMPILED = 0.1  # seconds of compiling, from which on a transition counts as one that compiles


class _TooLong(Exception):
    """The limit of a run is reached."""


class _Meter:
    """Core seconds of a run: those of this process, without the transitions in which programs were compiled.

    They say the same on a busy machine, where wall times do not.
    """

    def __init__(self, limit: float, compiling: CompileClock):
        self._limit, self._compiling, self._before = limit, compiling, 0.0
        self._began, self._compiled = time.process_time(), compiling.seconds

    def next(self) -> float | None:
        """A transition ends and the next one begins. The seconds of the one that ends, None if it has compiled."""
        ended = self._seconds()
        self._before += ended or 0.0
        self._began, self._compiled = time.process_time(), self._compiling.seconds
        return ended

    def _seconds(self) -> float | None:
        compiles = self._compiling.seconds - self._compiled > COMPILED
        return None if compiles else time.process_time() - self._began

    @property
    def total(self) -> float:
        """The seconds so far."""
        return self._before + (self._seconds() or 0.0)

    def poll(self) -> None:
        """Raises where the limit is reached."""
        if self.total > self._limit:
            raise _TooLong


@dataclass
class Course:
    """What came of a run.

    Attributes:
        fit, error: relative L2 errors against the reference at t = 0 and at t_end; None if not reached.
        lines: the metrics of every accepted step, and its core "seconds", None if it has compiled programs.
        messages: warnings and findings, each once.
        failure: why it did not reach t_end, or None. t: the time that it reached.
        fit_seconds, seconds: core seconds of the fit and of the whole run, without what compiles.
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


def evolve(run: Simulation, seed: int, limit: float = math.inf, fitting: Simulation | None = None) -> Course:
    """The initial fit and all steps of a run with that seed, without refits.

    limit: core seconds, without what compiles, after which it is given up. It ends after integrator.max_steps too.
    fitting: the same run with another solver, which makes the fit.
    """
    course = Course()
    with CompileClock() as compiling:
        meter = _Meter(limit, compiling)
        try:
            state = _fitted(fitting or run, seed, meter)._replace(rank=run.galerkin.initial_rank)
            course.fit_seconds = meter.total
            _follow(run, state, course, meter)
        except RunFailed as error:
            course.failure = " ".join(str(error).split())
        except _TooLong:
            course.failure = f"not done in {limit:g} s"
        course.seconds = meter.total
    return course


def _fitted(run: Simulation, seed: int, meter: _Meter) -> State:
    state = run.begin(seed)
    while not run.fits.is_done(state):
        meter.next()
        meter.poll()
        state = run.fits.advance(state)
        jax.block_until_ready(state.fit.theta)
    meter.next()
    return run.fits.finish_initial(state)[0]


def _follow(run: Simulation, state: State, course: Course, meter: _Meter) -> None:
    """Steps and outputs from the end of the fit to t_end. Raises RunFailed, and what the meter raises."""
    most, course.t = run.config.integrator.max_steps, state.t
    while state.phase != FINISHED:
        meter.next()
        meter.poll()
        if run.output_due(state):
            course.error = run.score(state).relative_l2
            course.fit = course.error if course.fit is None else course.fit
            state = run.after_output(state)
            continue
        course.error = None
        if state.step == most:
            raise RunFailed(f"{most} steps reached at t = {state.t:.3g}")
        accepted = run.step(state, meter.poll)
        state = accepted.state
        course.t = state.t
        course.lines.append(accepted.metrics | {"seconds": meter.next()})
        said = [*accepted.warnings, *accepted.findings]
        course.messages += [message for message in said if message not in course.messages]
