"""Requests to stop: SIGTERM (preemption, cancel), SIGINT (Ctrl-C), SIGUSR1/2 (time limit with notice)."""

import signal
import threading

from nivp_dist.cluster import session

_early: list[str] = []  # signals that came before the main loop


def heed() -> None:
    """From the start of a command to its very end: notice of a time limit must kill neither a start nor an end.

    What comes before the loop is obeyed by it; what comes after has nothing left to stop.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: _early.append(signal.Signals(number).name))


class StopRequest:
    """Remembers the first signal, of whichever process; a second SIGINT interrupts at once.

    A signal to a process other than 0 is handed on to it, which decides. Restores the handlers on exit.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self):
        self.received: str | None = None
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
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
