"""Callbacks: they change no bit of a run, add numbers to it, stop it, and lose nothing by their mistakes."""

import json
import os
import signal

import jax
import numpy as np
import pytest
from whole_runs import assert_same

from nivp_dist import Callback, resume, solve
from nivp_dist.callbacks import Probes
from nivp_dist.callbacks.loading import check, load
from nivp_dist.errors import InputError, RunStopped
from nivp_dist.problems import registry
from nivp_dist.run.callbacks import device_of_callbacks, names_of
from nivp_dist.settings.files import all_settings
from nivp_dist.storage.metrics import read_lines

LOOK = """\
from levels import LEVEL
from nivp_dist import Callback


class Counter(Callback):
    def after_step(self, view):
        self.memory["steps"] = self.memory.get("steps", 0) + 1
        view.record("count", self.memory["steps"])


class Level(Callback):
    level: float = LEVEL

    def after_step(self, view):
        largest = abs(view.solution([[0.3]])).max()
        view.record("largest", largest)
        if largest < self.level:
            view.stop(f"|u| is below {self.level:g}")


class Broken(Callback):
    def after_step(self, view):
        view.record("lost", 1.0)
        if view.step == 3:
            return [][view.step]
"""
TRACKERS = {"Probes": {"points": [[0.0], [0.5]]}, "SteadyState": {"tolerance": 1e-3}, "LivePicture": {"seconds": 1e9}}


@pytest.fixture(scope="module")
def look(runs):
    """The user's file, which imports another one beside it. u(0.3) falls from 1.30 to 1.13, through LEVEL."""
    (runs.folder / "levels.py").write_text("LEVEL = 1.2\n")
    path = runs.folder / "look.py"
    path.write_text(LOOK)
    return path


@pytest.fixture(scope="module")
def settings(look):
    def settings(*classes, **parameters):
        found = {"callbacks__file": str(look), "callbacks__classes": list(classes)}
        tables = ", ".join(f"{name} = {_table(values)}" for name, values in parameters.items())
        return found | {"callbacks__parameters": f"{{ {tables} }}"}

    return settings


def _table(values):
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items()) + " }"


@pytest.fixture(scope="module")
def watched(runs, settings):
    """A run with all kinds of callbacks, none of which stops it."""
    return runs.run(**settings("Counter", *TRACKERS, **TRACKERS))


def without_callbacks(ran):
    """The run as it would be without what callbacks have recorded."""

    class Bare(type(ran)):
        @property
        def metrics(self):
            return [{k: v for k, v in line.items() if not k.startswith("callback_")} for line in ran.metrics]

    return Bare(ran.directory)


def test_the_same_bits_with_and_without(watched, undisturbed):
    assert_same(without_callbacks(watched), undisturbed)
    assert watched.events == undisturbed.events


def test_what_is_recorded_stands_in_the_metrics(watched, undisturbed):
    lines = watched.metrics
    assert [line["callback_count"] for line in lines] == list(range(1, len(lines) + 1))
    decay = np.exp(-0.1 * np.pi**2 / 4 * np.array([line["t"] for line in lines]))  # of the first mode, u(0) = 1
    np.testing.assert_allclose([line["callback_probe_1_u"] for line in lines], decay, atol=1e-3)
    assert all(isinstance(line["callback_probe_2_u"], float) for line in lines)
    assert {name for name in lines[-1] if name.startswith("callback_")} == {
        f"callback_{name}" for name in ("count", "probe_1_u", "probe_2_u", "rate_of_change")
    }
    assert 0.1 * np.pi**2 / 4 < lines[-1]["callback_rate_of_change"] < 0.1 * np.pi**2  # between those of the two modes
    assert (watched.directory / "pictures/live.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("end", ["crash", "signal"])
def test_a_stop_and_a_resume_change_nothing(runs, settings, watched, crash, at, end):
    """Nor do they change what callbacks remember, and record."""
    wanted = settings("Counter", *TRACKERS, **TRACKERS)
    if end == "crash":
        ran = runs.begin(crash, ("step", 9), **wanted)
    else:
        with pytest.raises(RunStopped):
            runs.run(reporter=at("step", 9, lambda: os.kill(os.getpid(), signal.SIGTERM)), **wanted)
        ran = runs.Ran(runs.folder / f"run{runs.count}")
    assert_same(runs.resume(ran), watched)


def test_an_event_stops_the_run_with_a_snapshot_and_a_resume_goes_on(runs, settings, undisturbed):
    ran = runs.run(**settings("Level"))
    summary, last = ran.summary, ran.metrics[-1]
    place = f"stopped at t = {last['t']:.6g}, step {last['step']}, by Level: |u| is below 1.2"
    assert (summary["status"], summary["message"]) == ("event", place)
    assert last["callback_largest"] < 1.2 and all(line["callback_largest"] >= 1.2 for line in ran.metrics[:-1])
    assert ran.events[-1] == ("event", f"{place}; to go on: nivp resume {ran.directory}")
    assert last["t"] in ran.snapshots() and summary["errors"][-1]["t"] == last["t"]
    assert summary["errors"][-1]["relative_l2"] < 1e-3
    runs.resume(ran)  # u stays below the level, which is no event a second time
    assert ran.summary["status"] == "finished"
    mine, theirs = ran.snapshots(), undisturbed.snapshots()
    assert mine.keys() == theirs.keys() | {last["t"]}
    assert all(np.array_equal(mine[t]["theta"], theirs[t]["theta"]) for t in theirs)
    assert without_callbacks(ran).metrics == undisturbed.metrics


def test_a_broken_callback_is_named_and_switched_off(runs, settings, look, undisturbed):
    ran = runs.run(**settings("Broken", "Counter"))
    assert_same(without_callbacks(ran), undisturbed)
    copy, line = ran.directory / "callbacks/look.py", LOOK.splitlines().index("            return [][view.step]") + 1
    off = "this callback is switched off, and the run goes on"
    warning = f"{copy}:{line}: Broken.after_step: IndexError: list index out of range; {off}"
    assert ("warning", warning) in ran.events
    recorded = [(line.get("callback_lost"), line["callback_count"]) for line in ran.metrics[:4]]
    assert recorded == [(1.0, 1.0), (1.0, 2.0), (None, 3.0), (None, 4.0)]  # the other one goes on


def test_a_run_uses_its_copy_of_the_file(runs, settings, look, crash):
    ran = runs.begin(crash, ("step", 5), **settings("Counter"))
    assert (ran.directory / "callbacks/levels.py").is_file()
    look.write_text("raise AssertionError")
    try:
        assert runs.resume(ran).metrics[-1]["callback_count"] == len(ran.metrics)
    finally:
        look.write_text(LOOK)


class Listener(Callback):
    """Keeps all that it is called with."""

    def __init__(self):
        self.heard = []

    def after_fit(self, view):
        self.heard.append((view.moment, view.t, view.step))

    def after_step(self, view):
        if view.step == 2:
            self.heard.append((view.moment, view.metrics["t"] == view.t, float(view.solution([0.0]))))

    def at_output(self, view):
        self.heard.append((view.moment, view.output["t"], view.output["relative_l2"] < 1e-3))

    def at_end(self, view):
        self.heard.append((view.moment, view.t, view.reason))


SESSION = {
    "network": {"width": 8, "depth": 1, "frequencies": 1, "alpha": 1.0},
    "sampling": {"points": 201, "redraw_every": 2},
    "solver": {"method": "primal"},
    "integrator": {"method": "bogacki_shampine", "rtol": 2e-6, "t_end": 0.3, "initial_step": 0.01},
    "fit": {"points": 300, "iterations": 12, "target": 1e-3, "order": 1},
    "output": {"times": [0.1], "evaluation_points": 2000, "plots": False},
    "seed": 1,
    "devices": 1,
}


def test_the_moments_of_a_run_from_python(runs, undisturbed):
    """Instances of a session are called too; they are not recorded."""
    listener, ran = Listener(), runs.Ran(runs.new())
    config = SESSION | {"problem": {"file": str(runs.folder / "modes.py"), "class": "Modes"}}
    solve(config, directory=ran.directory, callbacks=[listener], quiet=True)
    assert_same(ran, undisturbed)
    moments = [entry[:2] for entry in listener.heard]
    assert moments[0] == ("after_fit", 0.0) and moments[1] == ("at_output", 0.0)
    assert [entry for entry in listener.heard if entry[0] == "at_output"] == [
        ("at_output", t, True) for t in (0.0, 0.1, 0.3)
    ]
    (step,) = (entry for entry in listener.heard if entry[0] == "after_step")
    assert step[1] and step[2] == pytest.approx(1.0, abs=0.02)
    assert listener.heard[-1] == ("at_end", 0.3, "")


class Soon(Callback):
    def after_step(self, view):
        if view.step >= 2:
            view.stop("two steps are enough")


class AtOutput(Callback):
    def at_output(self, view):
        if view.t == 0.1:
            view.stop("the first output is there")


def test_solve_returns_a_run_that_a_callback_has_stopped(runs, undisturbed):
    config = SESSION | {"problem": {"file": str(runs.folder / "modes.py"), "class": "Modes"}}
    run = solve(config, directory=runs.new(), callbacks=[Soon()], quiet=True)
    assert run.summary["status"] == "event" and run.summary["steps"] == 2
    assert run.times[-1] == run.summary["t"] and run.solution(run.times[-1])([[0.0]]).shape == (1, 1)
    event = run.times[-1]
    again = resume(run.directory, callbacks=[Soon(), AtOutput()], quiet=True)
    assert (again.summary["status"], again.summary["t"]) == ("event", 0.1)
    resume(run.directory, quiet=True)
    mine, theirs = runs.Ran(run.directory), undisturbed.snapshots()
    assert mine.summary["status"] == "finished" and mine.metrics == undisturbed.metrics
    found = {t: arrays for t, arrays in mine.snapshots().items() if t != event}
    assert found.keys() == theirs.keys()  # an event at an output time leaves its snapshot as it is
    assert all(np.array_equal(found[t][name], theirs[t][name], equal_nan=True) for t in theirs for name in theirs[t])


def test_another_file_in_a_resume_is_copied_too(runs, settings, look, crash):
    """The numbers of the steps before it stay as they are."""
    other = runs.folder / "other.py"
    other.write_text(LOOK.replace('"count"', '"number"'))
    ran = runs.begin(crash, ("step", 9), **settings("Counter"))
    run = resume(ran.directory, settings={"callbacks.file": str(other)}, quiet=True)
    other.unlink()
    names = [{"callback_count", "callback_number"} & line.keys() for line in ran.metrics]
    assert names[0] == {"callback_count"} and names[-1] == {"callback_number"}
    assert ran.metrics[-1]["callback_number"] == len(ran.metrics)  # the memory is that of the class
    assert run.config.callbacks.file == str(ran.directory / "callbacks-2/other.py")


@pytest.mark.parametrize(
    "body, changes, line",
    [
        (LOOK, {"classes": '["Lavel"]'}, "{file}: callbacks.classes: there is no class 'Lavel' in this file; it has "),
        (LOOK, {"parameters": '{ Level = { level = "a" } }'}, "{file}: callbacks.parameters.Level.level must be a nu"),
        (LOOK, {"parameters": "{ Level = { lavel = 1.0 } }"}, "{file}: unknown key callbacks.parameters.Level.lavel;"),
        (LOOK, {"parameters": "{ Probes = { } }"}, "command line: callbacks.parameters.Probes: callbacks.classes does"),
        (LOOK, {"classes": None}, "command line: callbacks.file needs callbacks.classes, the names of the classes in "),
        (LOOK, {"classes": '["Level", "Level"]'}, "command line: callbacks.classes has Level twice: remove one"),
        ("class Level: pass", {}, "{file}: class Level must derive from nivp_dist.Callback"),
        ("import nothing_here", {}, "{file}:1: ModuleNotFoundError: No module named 'nothing_here'; a file of callba"),
        ("1 / 0", {}, "{file}:1: ZeroDivisionError: division by zero"),
        (None, {}, "{file}: callbacks.file cannot be read: No such file or directory"),
        (None, {"file": None, "classes": '["Probe"]'}, "callbacks.classes: there is no ready-made callback 'Probe'; "),
    ],
)
def test_mistakes_are_one_line(runs, tmp_path, body, changes, line):
    file = tmp_path / "mine.py"
    if body is not None:
        file.write_text(body)
    (tmp_path / "levels.py").write_text("LEVEL = 1.2\n")
    given = {"file": str(file), "classes": '["Level"]'} | changes
    overrides = {f"callbacks__{key}": value for key, value in given.items() if value is not None}
    with pytest.raises(InputError) as caught:
        load(runs.config(**overrides).callbacks)
    message = str(caught.value)
    assert message.startswith(line.format(file=file)) and "\n" not in message


@pytest.mark.parametrize(
    "name, parameters, line",
    [
        (
            "Probes",
            "{ points = [[0.0, 0.0]] }",
            "callback Probes: points has [0.0, 0.0], and the problem has 1 dim",
        ),
        ("Conserved", "{}", "callback Conserved: Modes is no density and has no invariants"),
        ("LivePicture", "{ output = 2 }", "callback LivePicture: output = 2, and the problem has 1"),
    ],
)
def test_trackers_that_do_not_suit_the_problem_refuse_the_run(runs, name, parameters, line):
    config = runs.config(callbacks__classes=[name], callbacks__parameters=f"{{ {name} = {parameters} }}")
    with pytest.raises(InputError) as caught:
        check(load(config.callbacks), registry.load(config.problem))
    assert str(caught.value).startswith(line)


def test_an_empty_list_switches_callbacks_off(runs, tmp_path):
    """Even if their file is gone, or wrong: a run is never lost by it."""
    wanted = {"file": str(tmp_path / "gone.py"), "classes": "[]", "parameters": "{ Level = { level = 1.0 } }"}
    config = runs.config(**{f"callbacks__{key}": value for key, value in wanted.items()})
    assert load(config.callbacks) == [] and all_settings(config)["callbacks"]["classes"] == []


def test_what_is_no_callback_is_refused(runs):
    with pytest.raises(InputError, match=r"^callbacks has <class .*, which is no instance of a Callback class$"):
        solve(SESSION | {"problem": {"name": "heat"}}, callbacks=[Probes], quiet=True)


def test_several_processes_with_gpus_compute_for_callbacks_on_a_cpu(monkeypatch):
    """XLA tunes programs for GPUs in all processes together, and process 0 alone calls callbacks."""
    assert device_of_callbacks() is None
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert device_of_callbacks() is None
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert device_of_callbacks().platform == "cpu"

    def none(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", none)
    with pytest.raises(InputError, match="set JAX_PLATFORMS=cuda,cpu, or unset it$"):
        device_of_callbacks()


def test_names_are_the_same_in_every_start():
    one, two, other = Probes(points=[]), Probes(points=[[1.0]]), Soon()
    assert names_of([one, other, two]) == {"Probes": one, "Soon": other, "Probes-2": two}


def test_memory_that_json_cannot_hold_is_a_mistake_of_the_callback(runs):
    class Hoarder(Callback):
        def after_fit(self, view):
            self.memory["view"] = view

    ran = runs.Ran(runs.new())
    config = SESSION | {"problem": {"file": str(runs.folder / "modes.py"), "class": "Modes"}}
    solve(config, directory=ran.directory, callbacks=[Hoarder(), Soon()], quiet=True)
    kinds = [line for line in read_lines(ran.directory / "events.jsonl") if line["kind"] == "warning"]
    assert [line["message"].split(": ")[0] for line in kinds] == ["Hoarder.after_fit"]
    assert "not JSON serializable" in kinds[0]["message"] and ran.summary["status"] == "event"
