"""Callbacks of a run in two processes: process 0 alone calls them, and both stop where one of them asks for it."""

from process_groups import local

LOOK = """\

import jax
from nivp_dist import Callback


class Look(Callback):
    def after_fit(self, view):
        with open(view.directory / "callers", "a") as file:
            file.write(f"{jax.process_index()}\\n")

    def after_step(self, view):
        view.record("middle", view.solution([0.0]))
        if view.step == 2:
            view.stop("two steps are enough")
"""


def test_a_run_in_two_processes_is_stopped_and_goes_on_with_the_same_bits(processes, undisturbed):
    """It ends with exit code 0, and the whole has the bits of a run without callbacks."""
    (processes.folder / "look.py").write_text(LOOK)
    ran, chosen = processes.Ran(processes.new()), ("--callbacks.file", "look.py", "--callbacks.classes", '["Look"]')
    processes.finish(local(2), "run", "modes.toml", "--output", ran.directory, "--devices", "0", *chosen)
    assert (ran.summary["status"], ran.summary["steps"], ran.summary["processes"]) == ("event", 2, 2)
    assert (ran.directory / "callers").read_text() == "0\n"
    processes.resume(ran, local(2))
    assert (ran.theta() == undisturbed.theta()).all()
    assert [{k: v for k, v in line.items() if k != "callback_middle"} for line in ran.metrics] == undisturbed.metrics
    assert all("callback_middle" in line for line in ran.metrics)
