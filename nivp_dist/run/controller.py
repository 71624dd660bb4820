"""The main loop. Process 0 decides (go on, save, stop); what is done next follows from the state alone."""

import contextlib
from pathlib import Path

import jax

from nivp_dist.cluster.compile_clock import CompileClock
from nivp_dist.cluster.control import SAVE, STOP, Control
from nivp_dist.cluster.signals import StopRequest
from nivp_dist.errors import DiskFailed, InputError, RunFailed, RunStopped
from nivp_dist.formatting import describe_error
from nivp_dist.problems import registry
from nivp_dist.run.record import Record
from nivp_dist.run.reporter import SilentReporter
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.state import EVOLVE, FINISHED, FIT, PHASE_NAMES, State
from nivp_dist.settings.model import Config


class _Interrupted(Exception):
    """A stop was requested in the middle of a step: the state before it is the one to keep."""


def evolve(
    config: Config, directory: Path, *, resume: bool = False, reporter=None, problem=None, draw_pictures=None
) -> dict:
    """Run, or go on with, the run in `directory` until integrator.t_end. Returns the summary.

    draw_pictures: called with the directory and the problem when the run has finished (output.plots), or None.

    Raises InputError (bad input), RunStopped (on request, after a checkpoint), RunFailed (cannot go on;
    what it has is kept). Every process calls it.
    """
    reporter = reporter if reporter is not None and jax.process_index() == 0 else SilentReporter()
    problem = problem if problem is not None else registry.load(config.problem)
    with CompileClock() as clock, StopRequest() as request:
        simulation = Simulation(config, problem)
        record = Record(config, directory, simulation, clock)
        control = Control(config.checkpoint, request)
        return _Run(config, simulation, record, reporter, control, draw_pictures).loop(resume)


class _Run:
    def __init__(self, config, simulation: Simulation, record: Record, reporter, control: Control, draw_pictures):
        self.config, self.simulation, self.record = config, simulation, record
        self.reporter, self.control, self.draw_pictures = reporter, control, draw_pictures

    def loop(self, resume: bool) -> dict:
        state = self.start(resume)
        try:
            while state.phase != FINISHED:
                command = self.control.decide(state.transitions)
                if command in (SAVE, STOP):
                    self.save(state)
                if command == STOP:
                    self.stop(state)
                try:
                    state = self.advance(state)
                except _Interrupted:
                    self.save(state)
                    self.stop(state)
            return self.finish(state)
        except RunFailed as failure:
            self.fail(state, failure)
            raise

    def advance(self, state: State) -> State:
        """The next transition. Nothing but the state decides which."""
        simulation = self.simulation
        if state.phase == EVOLVE and simulation.output_due(state):
            return self.output(state)
        if state.phase != EVOLVE:
            return self.finish_fit(state) if simulation.fits.is_done(state) else self.fit_round(state)
        if (reason := simulation.reason_to_refit(state)) is not None:
            state = simulation.fits.begin_refit(state)
            self.say(state, "refit", f"refit at t = {state.t:.6g}: {reason}")
            self.reporter.phase(PHASE_NAMES[state.phase])
            return state
        if state.step >= self.config.integrator.max_steps:
            raise RunFailed(f"integrator.max_steps = {state.step} reached at t = {state.t:.6g}: raise it and resume")
        return self.step(state)

    def step(self, state: State) -> State:
        result = self.simulation.step(state, self.poll)
        self.reporter.step(self.record.step(result.metrics), self.config.integrator.t_end)
        for warning in result.warnings:
            self.say(result.state, "warning", warning, warn=True)
        return result.state

    def output(self, state: State) -> State:
        self.control.begin("output")
        score = self.simulation.score(state)
        self.record.output(state, score)
        errors = score.relative_l2, state.estimate.total
        self.reporter.output(state.t, *errors)
        state = self.simulation.after_output(state)
        self.record.event(state, "output", f"t = {state.t:g}: {describe_error(*errors)}")
        return state

    def fit_round(self, state: State) -> State:
        self.poll("round of a fit")
        state = self.simulation.fits.advance(state)
        target = self.config.fit.target if state.phase == FIT else self.simulation.fits.refit_bound(state)
        self.reporter.fit(int(state.fit.round), float(state.fit.error), target, self.simulation.fits.most_rounds)
        return state

    def finish_fit(self, state: State) -> State:
        if state.phase == FIT:
            state, error = self.simulation.fits.finish_initial(state)
            self.say(state, "fit", f"initial condition fitted to a relative error of {error:.2e}")
            if error > self.config.fit.target:
                self.say(state, "warning", f"the initial fit missed fit.target = {self.config.fit.target:g}", warn=True)
        else:
            bound = self.simulation.fits.refit_bound(state)
            state, error, accepted = self.simulation.fits.finish_refit(state)
            verdict = "accepted" if accepted else f"refused, the bound is {bound:.2g}"
            self.say(state, "refit", f"refit reached a relative error of {error:.2e}: {verdict}", warn=not accepted)
        self.reporter.phase(PHASE_NAMES[state.phase])
        return state

    # ----------------------------------------------------------------------------------------------

    def start(self, resume: bool) -> State:
        found = self.record.restore() if resume else None
        if found is None:
            if resume and self.record.began:
                self.reporter.note("no checkpoint was written before the run ended: it begins again from t = 0")
            self.reporter.phase(PHASE_NAMES[FIT])
            state = self.simulation.begin()
        else:
            state, messages = found
            for message in messages:
                self.say(state, "warning", message, warn=True)
            t_end = self.config.integrator.t_end
            if state.t > t_end * (1 + 1e-12):
                raise InputError(f"integrator.t_end = {t_end:g} lies before the checkpoint, t = {state.t:g}: raise it")
            state = self.simulation.resumed(state)
            if state.phase == FINISHED:  # nothing happens any more
                return state
            self.say(state, "resume", f"resumed at t = {state.t:.6g}, step {state.step}")
            self.reporter.phase(PHASE_NAMES[state.phase])
        self.record.summary(state, "running")
        return state

    def poll(self, label: str = "stage of a step") -> None:
        if self.control.stop_requested(label):
            raise _Interrupted

    def save(self, state: State) -> bool:
        self.control.begin("save")
        written = self.record.save(state)
        if written:
            self.record.summary(state, "running")
        self.control.saved(state.transitions)
        return written

    def finish(self, state: State) -> dict:
        if self.save(state):  # else the run had been finished before
            self.record.event(state, "finish", f"finished at t = {state.t:g} after {state.step} steps")
        summary = self.record.summary(state, "finished")
        self.draw()
        self.reporter.finish(summary, self.record.directory)
        return summary

    def fail(self, state: State, failure: RunFailed) -> None:
        """What can still be written, is. A refused write of process 0 is known to no other: nothing collective then."""
        if not isinstance(failure, DiskFailed):
            with contextlib.suppress(RunFailed):  # that it cannot be saved either is not what went wrong first
                self.save(state)
        with contextlib.suppress(DiskFailed):
            self.record.summary(state, "failed", str(failure))
            self.record.event(state, "fail", str(failure))

    def stop(self, state: State) -> None:
        signal = self.control.request.received  # known to process 0, which writes it down
        reason = f"stopped on request ({signal}) at t = {state.t:.6g}, with a checkpoint"
        self.record.event(state, "stop", reason)
        self.record.summary(state, "stopped", reason, signal=signal)
        raise RunStopped(f"{reason}; to go on: nivp resume {self.record.directory}")

    def say(self, state: State, kind: str, message: str, warn: bool = False) -> None:
        self.record.event(state, kind, message)
        (self.reporter.warn if warn else self.reporter.note)(message)

    def draw(self) -> None:
        """Pictures are a courtesy: that one could not be drawn must not fail a finished run."""
        if self.draw_pictures is None or not (self.config.output.plots and self.record.writes):
            return
        try:
            self.draw_pictures(self.record.directory, self.simulation.problem)
        except Exception as error:  # noqa: BLE001
            self.reporter.warn(f"the pictures could not be drawn ({type(error).__name__}: {error}); try: nivp plot")
