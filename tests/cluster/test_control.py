"""Decisions to save and to stop, and signals: what needs no second process."""

import os
import signal
import threading
import time
import types
from typing import Any

import pytest

from nivp_dist.backend.mesh import make_mesh, replicate, to_host
from nivp_dist.cluster import watchdog
from nivp_dist.cluster.control import GO, SAVE, STOP, Control, from_process_zero
from nivp_dist.cluster.session import Session
from nivp_dist.cluster.signals import StopRequest
from nivp_dist.cluster.topology import Topology
from nivp_dist.errors import InputError
from nivp_dist.settings.model import CheckpointSettings


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def control():
    return Control(CheckpointSettings(every_steps=3, every_minutes=2.0), StopRequest(), Clock())


def test_a_save_is_due_after_some_steps_or_minutes(control):
    assert control.decide(0) == SAVE  # a run has a checkpoint from its beginning
    control.saved(0)
    assert [control.decide(step) for step in (0, 1, 2, 3)] == [GO, GO, GO, SAVE]
    control.saved(3)
    control.clock.now = 119.0
    assert control.decide(4) == GO
    control.clock.now = 120.0
    assert control.decide(4) == SAVE
    assert control.decide(3) == GO  # this step is saved already


def saves_of(control, seconds, steps, cost):
    """The steps, of so many seconds each, at which the run saves; cost: step -> seconds of its save."""
    saved = []
    for step in range(steps):
        if control.decide(step) == SAVE:
            saved.append(step)
            control.begin("save")
            control.clock.now += cost(step)
            control.saved(step)
        control.clock.now += seconds
    return saved


def test_where_no_interval_is_set_saves_take_a_hundredth_of_the_time():
    def control():
        return Control(CheckpointSettings(), StopRequest(), Clock())

    assert saves_of(control(), 0.125, 2000, lambda step: 0.5) == [0, 400, 800, 1200, 1600]  # 50 s between two saves
    assert saves_of(control(), 2.0, 200, lambda step: 0.0) == list(range(200))
    # A save that takes longer, as on a disk that others use, makes the next ones rarer.
    assert saves_of(control(), 1.0, 400, lambda step: 0.5 if step < 60 else 1.0) == [0, 50, 100, 200, 300]
    # One that a disk in trouble has held up for an hour does not leave the run without a checkpoint for days.
    assert saves_of(control(), 60.0, 100, lambda step: 1.0 if step else 3600.0)[:4] == [0, 30, 32, 34]


def test_a_save_that_was_on_the_disk_already_says_nothing_of_its_cost():
    control = Control(CheckpointSettings(), StopRequest(), Clock())
    saves_of(control, 1.0, 1, lambda step: 2.0)
    control.begin("save")
    control.saved(1, written=False)
    assert control.save_seconds == 2.0


def test_an_interval_in_steps_alone_knows_no_time_and_one_in_minutes_alone_no_steps():
    for settings, saved in (({"every_steps": 40}, [0, 40, 80]), ({"every_minutes": 0.5}, [0, 30, 60, 90])):
        control = Control(CheckpointSettings(**settings), StopRequest(), Clock())
        assert saves_of(control, 1.0, 100, lambda step: 0.0) == saved


def test_a_request_to_stop_comes_before_a_save(control):
    assert not control.stop_requested("step")
    control.request.received = "SIGTERM"
    assert control.decide(0) == STOP and control.stop_requested("step")


class Wire:
    """A channel of two processes, one after the other: what process 0 has sent is what process 1 receives."""

    name, processes = "a wire", 2

    def __init__(self):
        self.index, self.sent, self.received = 0, [], 0

    def broadcast(self, value):
        if self.index == 0:
            self.sent.append(value)
        else:
            self.received += 1
        return self.sent[-1 if self.index == 0 else self.received - 1]


@pytest.mark.parametrize(
    "seconds, asked, answered",
    [(0.01, 1, 6), (0.3, 2, 3), (2.0, 7, 0)],  # of a stage; questions in a step of six; stages before a stop is noticed
)
def test_processes_ask_whether_to_stop_about_every_second(monkeypatch, seconds, asked, answered):
    wire = Wire()
    monkeypatch.setattr("nivp_dist.cluster.channel.current", lambda: wire)

    def steps(clock_of_its_own):
        """Two steps of six stages, and one more in which a stop is requested: the questions, and when it is noticed."""
        control = Control(CheckpointSettings(every_minutes=1e6), StopRequest(), Clock())
        control.saved(0)
        asked = []
        for _ in range(2):
            before = len(wire.sent) + wire.received
            assert control.decide(0) == GO
            for _ in range(6):
                control.clock.now += seconds if clock_of_its_own else 17.0
                assert not control.stop_requested("stage")
            asked.append(len(wire.sent) + wire.received - before)
        assert control.decide(0) == GO
        control.request.received = "SIGTERM" if wire.index == 0 else None
        stages = 0
        while stages < 6 and not control.stop_requested("stage"):
            stages += 1
            control.clock.now += seconds
        assert stages < 6 or control.decide(0) == STOP
        return asked[1], stages

    first = steps(clock_of_its_own=True)
    assert first == (asked, answered)
    wire.index = 1
    assert steps(clock_of_its_own=False) == first and wire.received == len(wire.sent)


def test_process_0_gives_its_text_or_its_error_to_all():
    assert from_process_zero(lambda: "where") == "where"
    with pytest.raises(InputError, match="an error"):
        from_process_zero(lambda: (_ for _ in ()).throw(InputError("an error")))


@pytest.mark.parametrize("number", StopRequest.SIGNALS)
def test_signals_are_remembered_and_handlers_restored(number):
    def handler(*_):
        pass

    before = signal.signal(number, handler)  # the tests themselves may run under nohup
    try:
        with StopRequest() as request:
            assert request.received is None
            os.kill(os.getpid(), number)
            assert request.received == signal.Signals(number).name
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)


def test_a_run_under_nohup_outlives_its_terminal(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup starts a program
    try:
        with StopRequest() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            assert request.received is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_timer_stands_for_a_notice_that_the_scheduler_does_not_send(monkeypatch):
    monkeypatch.setenv("NIVP_NOTICE_AT", str(int(time.time()) - 5))  # it is late: at once
    with StopRequest() as request:
        deadline = time.monotonic() + 20
        while request.received is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert request.received == "SIGUSR2"
    monkeypatch.setenv("NIVP_NOTICE_AT", str(int(time.time()) + 1000))
    with StopRequest() as request:
        assert request._timer is not None and request._timer.is_alive() and request.received is None
    request._timer.join(20)
    assert not request._timer.is_alive() and request.received is None
    monkeypatch.setenv("NIVP_NOTICE_AT", "noon")
    with pytest.raises(InputError, match="NIVP_NOTICE_AT must be seconds since 1970, got 'noon'"):
        StopRequest()


@pytest.mark.parametrize("notice, shown", [("40", 1), ("", 0), ("41", 0)])
def test_a_step_that_takes_longer_than_the_notice_is_said_once(monkeypatch, notice, shown):
    """With its save: 30 and 11 seconds. The first step is compiled, and says nothing of the others."""
    monkeypatch.setenv("NIVP_NOTICE_SECONDS", notice)
    control, said = Control(CheckpointSettings(every_steps=2), StopRequest(), Clock()), []
    for step, seconds in enumerate((900.0, 30.0, 30.0, 30.0)):
        if control.decide(step) == SAVE:
            control.begin("save")
            control.clock.now += 11.0
            control.saved(step)
        control.clock.now += seconds
        said += control.notice_warnings()
    line = (
        "a step and its save take 41 s, and the job has 40 s from its notice to its limit: submit it with --notice 123"
    )
    assert said == [line] * shown


def test_a_second_ctrl_c_interrupts_at_once():
    with pytest.raises(KeyboardInterrupt), StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_sigterm_after_ctrl_c_does_not_interrupt():
    with StopRequest() as request:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert request.received == "SIGINT"


@pytest.mark.devices
def test_replicated_arrays_come_back_bit_for_bit():
    import jax
    import numpy as np

    mesh = make_mesh(0)
    assert mesh.size == jax.device_count() and make_mesh(1).size == 1
    tree = {"a": np.linspace(0, 1, 7), "b": np.uint32(5), "empty": np.zeros((0, 3))}
    there = replicate(tree, mesh)
    for name, value in tree.items():
        assert there[name].sharding.is_fully_replicated
        assert there[name].dtype == value.dtype and np.array_equal(to_host(there[name]), value)


def test_more_devices_than_exist_are_an_error():
    with pytest.raises(InputError, match="devices = 4096, but there are"):
        make_mesh(4096)


def test_a_process_that_has_parted_from_the_others_ends_alone(monkeypatch, capsys):
    """Process 0 while it draws the pictures: the others have left once, and its failure is no longer theirs."""
    calls = []
    group: Any = types.SimpleNamespace(
        leave=lambda: calls.append("leave"), fail=lambda *words: calls.append("fail"), position=(0, "")
    )
    monkeypatch.setattr("jax.distributed.shutdown", lambda: calls.append("shutdown"))
    here = Session(Topology(2, 0, "local"), group)
    here.part()
    here.fail("a defect in a picture", 1, False)
    here.part()
    assert here.leave(75, "the last line") == 75
    assert calls == ["shutdown", "leave"] and capsys.readouterr().err == "nivp: the last line\n"


def test_the_deadline_holds_for_a_process_that_has_parted_from_the_others(monkeypatch):
    causes, ended = [], threading.Event()
    monkeypatch.setattr(watchdog.os, "_exit", lambda code: ended.set())
    monkeypatch.setattr(watchdog.ending, "write_cause", lambda cause, *_, **__: causes.append(cause))
    group: Any = types.SimpleNamespace(position=(7, "leave"), report_missed_deadline=lambda seconds: ended.set())
    log: Any = types.SimpleNamespace(write=causes.append, write_last_line=causes.append)
    watching = watchdog.Watchdog(group, 0.3)
    watching.log = log
    watching.watch_alone()
    watching.begin("pictures")
    assert ended.wait(20) and "'pictures'" in causes[0] and "'pictures'" in causes[1]  # the stacks, and the cause


def test_a_group_that_has_not_parted_fails_as_a_whole():
    calls = []
    group: Any = types.SimpleNamespace(fail=lambda *words: calls.append(words))
    here = Session(Topology(2, 0, "local"), group)
    here.fail("a defect", 1, False)
    assert calls == [("a defect", 1, False)]
