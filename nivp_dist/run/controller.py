"""The main loop of a run: ``MainLoop.run``.

Process 0 decides whether to go on, save or stop, by its clock and by signals; every process obeys. Which transition
comes next (a round of a fit, a refit, a step, an output) follows from the state alone, on every process alike.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from nivp_dist.callbacks import Callback
from nivp_dist.cluster.compile_clock import CompileClock
from nivp_dist.cluster.control import EVENT, SAVE, STOP, Control
from nivp_dist.cluster.signals import StopRequest
from nivp_dist.errors import DiskFailed, InputError, RunFailed, RunStopped
from nivp_dist.formatting import describe_error
from nivp_dist.monitoring.advice import refit_outcome, verdict
from nivp_dist.problems import registry
from nivp_dist.run.callbacks import Callbacks
from nivp_dist.run.ending import Ending
from nivp_dist.run.history import times
from nivp_dist.run.record import Record
from nivp_dist.run.reporter import SilentReporter
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.state import FINISHED, FIT, PHASE_NAMES, REFIT, State
from nivp_dist.run.view import Moment
from nivp_dist.settings.model import Config


class Interrupted(Exception):
    """A stop was requested in the middle of a transition: the state before it is kept."""


def evolve(
    config: Config,
    directory: Path,
    *,
    resume: bool = False,
    reporter=None,
    problem=None,
    callbacks: Sequence[Callback] = (),
    ending: Ending = Ending(),
) -> dict:
    """Run, or go on with, the run in `directory` to its end, or until a callback stops it. Every process calls it.

    Args:
        resume: go on from the newest checkpoint.
        reporter: shows progress (``run.reporter``), on process 0. problem: an instance, or None to load config.problem.
        callbacks: instances of a Python session, called after those of config.callbacks.
        ending: what follows when the run has finished, or a callback has stopped it.

    Returns the summary, as summary.json holds it. Raises InputError (bad input), RunStopped (on request, after a
    checkpoint), RunFailed (it cannot go on; what was written is kept).
    """
    reporter = reporter if reporter is not None and jax.process_index() == 0 else SilentReporter()
    problem = problem if problem is not None else registry.load(config.problem)
    # With JAX_DEBUG_NANS=1 jax raises at the first NaN. Here NaNs are values that decide: a fit or a step tries
    # something else, and a right-hand side that is not finite is reported with its place (galerkin/not_finite.py).
    with CompileClock() as clock, StopRequest() as request, jax.debug_nans(False), jax.debug_infs(False):
        simulation = Simulation(config, problem, reporter.note)
        record = Record(config, directory, simulation, clock)
        control = Control(config.checkpoint, request)
        called = Callbacks(config.callbacks, callbacks, simulation, record.directory, record.callbacks)
        return MainLoop(simulation, record, control, reporter, called, ending).run(resume)


class MainLoop:
    """One run from its start, or its checkpoint, to its end.

    Args:
        simulation: computes. record: writes files. control: decides on saving and stopping. reporter: shows progress.
        callbacks: those of the run, or None. ending: what follows.
    """

    def __init__(
        self,
        simulation: Simulation,
        record: Record,
        control: Control,
        reporter,
        callbacks: Callbacks | None = None,
        ending: Ending = Ending(),
    ):
        self.config, self.simulation, self.record = simulation.config, simulation, record
        self.control, self.reporter, self.callbacks, self.ending = control, reporter, callbacks, ending

    def run(self, resume: bool = False) -> dict:
        """Transition by transition until the run has finished. Returns the summary; raises as ``evolve``."""
        state = self.start(resume)
        try:
            while state.phase != FINISHED:
                command = self.control.decide(state.transitions)
                if command == EVENT:
                    return self.end_at_event(state)
                if command == SAVE:
                    self.save(state)
                if command == STOP:
                    self.stop(state)
                try:
                    state = self.advance(state)
                except Interrupted:
                    self.stop(state)
            return self.finish(state)
        except RunFailed as failure:
            self.fail(state, failure)
            raise

    def advance(self, state: State) -> State:
        """The next transition: nothing but the state decides which."""
        simulation = self.simulation
        if state.phase in (FIT, REFIT):
            return self.finish_fit(state) if simulation.fits.is_done(state) else self.fit_round(state)
        if simulation.output_due(state):
            return self.output(state)
        if (reason := simulation.reason_to_refit(state)) is not None:
            return self.begin_refit(state, reason)
        if state.step >= self.config.integrator.max_steps:
            raise RunFailed(
                f"integrator.max_steps = {self.config.integrator.max_steps} reached at t = {state.t:.6g}: "
                "raise it and resume"
            )
        return self.step(state)

    # Transitions ----------------------------------------------------------------------------------

    def step(self, state: State) -> State:
        """An accepted step, with its line in metrics.jsonl."""
        result = self.simulation.step(state, self.poll)
        metrics = result.metrics | self.call(Moment("after_step", result.state, state, result.metrics))
        self.reporter.step(self.record.step(metrics), self.config.integrator.t_end)
        for warning in (*result.warnings, *self.control.notice_warnings()):
            self.say(result.state, "warning", warning, warn=True)
        for finding in result.findings:
            self.say(result.state, "finding", finding)
        return result.state

    def output(self, state: State) -> State:
        """A snapshot with its errors."""
        self.control.begin("output")
        score = self.simulation.score(state)
        self.record.output(state, score)
        errors = score.relative_l2, state.estimate.error
        self.reporter.output(state.t, *errors)
        if message := self.simulation.lost_mass(state, score):
            self.say(state, "warning", message, warn=True)
        entry, state = self.record.outputs[state.t], self.simulation.after_output(state)
        self.record.event(state, "output", f"t = {state.t:g}: {describe_error(*errors)}")
        self.call(Moment("at_output", state, output=entry))
        if state.phase == FINISHED:  # before the last checkpoint: a resume from that one writes no more events
            if found := verdict(self.config.accuracy, self.record.outputs):
                self.say(state, "finding" if found.held else "warning", found.message, warn=not found.held)
            self.record.event(state, "finish", f"finished at t = {state.t:g} after {state.step} steps")
        return state

    def fit_round(self, state: State) -> State:
        """A round of the initial fit or of a refit."""
        self.poll("round of a fit")
        fits = self.simulation.fits
        state = fits.advance(state)
        target = self.config.fit.target if state.phase == FIT else fits.refit_bound(state)
        fitter, fit = fits.fitter(state), state.fit
        stop_at = 0.0 if fitter.settings.method == "optimiser" else fitter.settings.stop_at
        self.reporter.fit(int(fit.round), float(fit.error), target, max(fitter.last_round, int(fit.round)), stop_at)
        return state

    def finish_fit(self, state: State) -> State:
        """The end of the initial fit or of a refit: back to the evolution."""
        fits = self.simulation.fits
        if state.phase == FIT:
            state, error, warnings = self.simulation.finish_initial(state)
            self.say(state, "fit", f"initial condition fitted to a relative error of {error:.2e}")
            for warning in warnings:
                self.say(state, "warning", warning, warn=True)
        else:
            bound = fits.refit_bound(state)
            state, error, accepted = fits.finish_refit(state)
            outcome = refit_outcome(self.config, fits.refit.settings, error, bound, accepted)
            self.say(state, "refit", outcome, warn=not accepted)
        self.call(Moment("after_fit", state))
        self.reporter.phase(PHASE_NAMES[state.phase])
        return state

    def begin_refit(self, state: State, reason: str) -> State:
        state = self.simulation.fits.begin_refit(state)
        self.say(state, "refit", f"refit at t = {state.t:.6g}: {reason}")
        self.reporter.phase(PHASE_NAMES[state.phase])
        return state

    # Beginning and ends ---------------------------------------------------------------------------

    def start(self, resume: bool) -> State:
        """The state from which the run begins, or goes on."""
        found = self.record.restore() if resume else None
        if found is not None:
            state = self.restored(*found)
            if state.phase == FINISHED:
                return state
        else:
            if resume and self.record.began:
                self.reporter.note("no checkpoint was written before the run ended: it begins again from its start")
            self.reporter.phase(PHASE_NAMES[FIT])
            state = self.simulation.begin()
            if message := self.simulation.fits.unseen(state.density):
                self.say(state, "warning", message, warn=True)
        self.record.summary(state, "running")
        return state

    def restored(self, state: State, messages: list[str]) -> State:
        """A state from a checkpoint, under settings that may have changed."""
        for message in messages:
            self.say(state, "warning", message, warn=True)
        t_end = self.config.integrator.t_end
        if state.t > t_end + 1e-12 * abs(t_end):
            raise InputError(f"integrator.t_end = {t_end:g} lies before the checkpoint, t = {state.t:g}: raise it")
        state = self.simulation.resumed(state)
        if state.phase != FINISHED:
            again = f"; outputs to be computed again: {times(sorted(self.record.abandoned))}"
            removed = again if self.record.abandoned else ""
            change = f"; other settings: {self.record.settings_change}" if self.record.settings_change else ""
            self.say(state, "resume", f"resumed at t = {state.t:.6g}, step {state.step}{removed}{change}")
            self.warn_of_changes(state)
            self.reporter.phase(PHASE_NAMES[state.phase])
        return state

    def warn_of_changes(self, state: State) -> None:
        """Warn of another environment than that of the checkpoint, and of output times that the run has passed."""
        if self.record.environment_change:
            self.say(state, "environment", self.record.environment_change, warn=True)
        written = np.array([*self.record.outputs, *self.record.lost])
        passed = [t for t in self.simulation.output_times if t < state.t and not np.isclose(written, t, 1e-9).any()]
        if passed and self.record.writes:
            where = f"they lie before t = {state.t:.6g}, where the run goes on"
            self.say(state, "warning", f"no snapshot at the output times {times(passed)}: {where}", warn=True)

    def poll(self, label: str = "stage of a step") -> None:
        """Called between the parts of a transition. Raises Interrupted if a stop was requested."""
        if self.control.stop_requested(label):
            raise Interrupted

    def save(self, state: State) -> bool:
        """Write a checkpoint. False if it was there already."""
        self.control.begin("save")
        written = self.record.save(state)
        if written:
            self.record.summary(state, "running")
        self.control.saved(state.transitions, written)
        return written

    def end_at_event(self, state: State) -> dict:
        """The end of a run that a callback wants to stop, with a snapshot. Returns the summary."""
        if state.outputs_written == self.simulation.outputs_before(state.t):  # else that of an output time is there
            self.control.begin("output")
            self.record.output(state, self.simulation.score(state))
        reason = f"stopped at t = {state.t:.6g}, step {state.step}, by {self.control.event}"
        self.say(state, "event", f"{reason}; to go on: {self.record.resume_command}")
        return self.finish(state, "event", reason)

    def finish(self, state: State, status: str = "finished", reason: str = "") -> dict:
        """The last checkpoint, the summary and the pictures. Returns the summary."""
        self.call(Moment("at_end", state, reason=reason))
        self.save(state)
        summary = self.record.summary(state, status, reason)
        self.ending.part()  # drawing takes up to a minute, for which the others need not wait with their devices
        self.control.begin("pictures")
        if self.config.output.plots and self.record.writes:
            self.ending.draw(self.record.directory, self.simulation.problem, self.reporter)
        self.reporter.finish(summary, self.record.directory)
        return summary

    def fail(self, state: State, failure: RunFailed) -> None:
        """Write what can still be written. After a failed write, which process 0 alone knows of, nothing collective may
        follow, and so no checkpoint."""
        if not isinstance(failure, DiskFailed):
            with contextlib.suppress(RunFailed):  # the first failure is the one to report
                self.save(state)
        with contextlib.suppress(DiskFailed):
            self.record.summary(state, "failed", str(failure))
            self.record.event(state, "fail", str(failure))

    def stop(self, state: State) -> None:
        """Save, write down why the run stops, and raise RunStopped."""
        signal = self.control.request.received  # None on other processes than 0, which write nothing
        reason = f"stopped on request ({signal}) at t = {state.t:.6g}, step {state.step}, with a checkpoint"
        self.call(Moment("at_end", state, reason=reason))
        self.save(state)
        self.record.event(state, "stop", reason)
        self.record.summary(state, "stopped", reason, signal=signal)
        raise RunStopped(f"{reason}; to go on: {self.record.resume_command}")

    def call(self, moment: Moment) -> dict[str, float]:
        """Call the callbacks. Returns the numbers that they have recorded."""
        warn = lambda line: self.say(moment.state, "warning", line, warn=True)  # noqa: E731
        return {} if self.callbacks is None else self.callbacks.call(moment, self.control, warn)

    def say(self, state: State, kind: str, message: str, warn: bool = False) -> None:
        """A line in events.jsonl and on the screen."""
        self.record.event(state, kind, message)
        (self.reporter.warn if warn else self.reporter.note)(message)
