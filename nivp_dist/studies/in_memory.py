"""A run in memory, without files: several seeds of it share the programs, which take longer to compile than to run."""

import math
import time
from collections.abc import Callable
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

    A busy machine changes them less than wall times.
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
        seconds, compiled = self._spent()
        return None if compiled > COMPILED else seconds

    def _spent(self) -> tuple[float, float]:
        """Core seconds since the transition began, and the seconds of it in which programs were compiled."""
        return time.process_time() - self._began, self._compiling.seconds - self._compiled

    @property
    def total(self) -> float:
        """The seconds so far."""
        return self._before + (self._seconds() or 0.0)

    def poll(self) -> None:
        """Raises where the limit is reached, be it in a transition that compiles."""
        seconds, compiled = self._spent()
        if self._before + max(0.0, seconds - compiled) > self._limit:
            raise _TooLong


@dataclass
class Course:
    """What came of a run.

    Attributes:
        fit, error: relative L2 errors against the reference at t = 0 and at t_end; None if not reached.
        outputs: t and relative L2 error at every output time.
        refits: of every refit its "t", "step", "reason", relative "error", and whether it was "accepted".
        lines: the metrics of every accepted step, and its core "seconds", None if it has compiled programs.
        messages: warnings and findings, each once.
        failure: why it did not reach t_end, or None. t: the time that it reached.
        fit_seconds, seconds: core seconds of the fit and of the whole run, without what compiles.
    """

    fit: float | None = None
    error: float | None = None
    outputs: list[tuple[float, float | None]] = field(default_factory=list)
    refits: list[dict] = field(default_factory=list)
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


def evolve(
    run: Simulation,
    seed: int,
    limit: float = math.inf,
    fitting: Simulation | None = None,
    watch: Callable[[State], None] | None = None,
) -> Course:
    """The initial fit, all steps and all refits of a run with that seed.

    limit: core seconds, without what compiles, after which it is given up. It ends after integrator.max_steps too.
    fitting: the same run with another solver, which makes the fit.
    watch: is called with the state after every fit, refit and step.
    """
    course = Course()
    with CompileClock() as compiling:
        meter = _Meter(limit, compiling)
        try:
            state = _fitted(fitting or run, seed, meter)._replace(rank=run.galerkin.initial_rank)
            course.fit_seconds = meter.total
            _follow(run, state, course, meter, watch or _unwatched)
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


def _unwatched(state: State) -> None:
    """The default of ``watch``: it does nothing."""


def _follow(run: Simulation, state: State, course: Course, meter: _Meter, watch) -> None:
    """All from the end of the fit to t_end. Raises RunFailed, and what the meter raises."""
    most, course.t = run.config.integrator.max_steps, state.t
    watch(state)
    while state.phase != FINISHED:
        meter.next()
        meter.poll()
        if run.output_due(state):
            course.error = run.score(state).relative_l2
            course.fit = course.error if course.fit is None else course.fit
            course.outputs.append((state.t, course.error))
            state = run.after_output(state)
            continue
        course.error = None
        if (reason := run.reason_to_refit(state)) is not None:
            state = _refitted(run, state, reason, course, meter)
            watch(state)
            continue
        if state.step == most:
            raise RunFailed(f"{most} steps reached at t = {state.t:.3g}")
        accepted = run.step(state, meter.poll)
        state = accepted.state
        course.t = state.t
        course.lines.append(accepted.metrics | {"seconds": meter.next()})
        said = [*accepted.warnings, *accepted.findings]
        course.messages += [message for message in said if message not in course.messages]
        watch(state)


def _refitted(run: Simulation, state: State, reason: str, course: Course, meter: _Meter) -> State:
    """The state after a refit, accepted or not."""
    fits = run.fits
    state = fits.begin_refit(state)
    while not fits.is_done(state):
        meter.next()
        meter.poll()
        state = fits.advance(state)
        jax.block_until_ready(state.fit.theta)
    state, error, accepted = fits.finish_refit(state)
    course.refits.append({"t": state.t, "step": state.step, "reason": reason, "error": error, "accepted": accepted})
    return state
