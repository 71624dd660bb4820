"""Requests to stop: SIGTERM (preemption, cancel), SIGINT (Ctrl-C), SIGHUP (the terminal is closed), SIGUSR1 and SIGUSR2
(notice of a time limit)."""

import signal
import threading

from nivp_dist.cluster import session

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

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _wanted(*self.SIGNALS)}
        if (group := session.current().group) is not None:
            group.on_signal = self._receive
        if _early:
            self._receive(_early[0])
        return self

    def __exit__(self, *exception):
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


def _wanted(*signals: signal.Signals) -> list[signal.Signals]:
    """The signals without SIGHUP where it is ignored: a run under nohup outlives its terminal."""
    return [number for number in signals if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
