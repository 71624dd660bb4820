"""Requests to stop: SIGTERM (preemption, cancel), SIGINT (Ctrl-C), SIGHUP (the terminal is closed), SIGUSR1 and SIGUSR2
(notice of a time limit). Where a scheduler sends no notice, a timer of process 0 stands for it."""

import os
import re
import signal
import threading
import time

from nivp_dist.cluster import session
from nivp_dist.errors import InputError
from nivp_dist.settings.job_environment import NOTICE_AT

_early: list[str] = []  # signals that came before the main loop


def remember_early_signals() -> None:
    """Called at the start of a command: from now on to its very end, a notice of the time limit kills nothing.

    A signal that comes before the main loop stops the run when the loop begins. One that comes after the loop finds
    nothing left to stop.
    """
    for number in _wanted(signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: _early.append(signal.Signals(number).name))


class StopRequest:
    """A context that remembers the first signal that any process of the group receives, and restores the handlers.

    received: the name of that signal, or None. Only process 0 acts on it; a signal to another process is passed on to
    process 0. A second SIGINT raises KeyboardInterrupt at once.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self):
        self.received: str | None = None
        self._before = {}
        self._notice_at, self._timer = _notice_time(), None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _wanted(*self.SIGNALS)}
        if (group := session.current().group) is not None:
            group.on_signal = self._receive
        if _early:
            self._receive(_early[0])
        if self._notice_at is not None and session.current().topology.index == 0:
            seconds = min(max(self._notice_at - time.time(), 0.0), threading.TIMEOUT_MAX)
            self._timer = threading.Timer(seconds, self._receive, ("SIGUSR2",))
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *exception):
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._receive(signal.Signals(number).name)

    def _receive(self, name: str) -> None:
        self.received = self.received or name
        if (group := session.current().group) is not None:
            group.signal = self.received


def _notice_time() -> int | None:
    """The time of the notice that a job script has set, in seconds since 1970; None if it has set none."""
    text = os.environ.get(NOTICE_AT, "")
    if text and not re.fullmatch(r"\d+", text, re.ASCII):
        raise InputError(f"environment: {NOTICE_AT} must be seconds since 1970, got {text!r}: correct or unset it")
    return int(text) if text else None


def _wanted(*signals: signal.Signals) -> list[signal.Signals]:
    """The signals without SIGHUP where it is ignored: a run under nohup outlives its terminal."""
    return [number for number in signals if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
