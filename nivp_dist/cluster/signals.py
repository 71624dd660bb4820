"""Requests to stop: SIGTERM (preemption, cancel), SIGINT (Ctrl-C), SIGUSR1/2 (time limit with notice)."""

import signal
import threading


class StopRequest:
    """Remembers the first signal; a second SIGINT interrupts at once. Restores the handlers on exit."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self):
        self.received: str | None = None
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number).name
