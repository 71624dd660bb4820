"""The time that a run spends on building its programs: tracing, lowering and compiling."""

import time

from jax import monitoring

EVENTS = "/jax/core/compile/"  # jaxpr_trace_duration, jaxpr_to_mlir_module_duration, backend_compile_duration


class CompileClock:
    """A context that measures the seconds which jax spends on building programs in this process.

    jax reports the trace of each function when it ends, the innermost first, and the trace of a program includes those
    of the functions that it calls. Intervals that overlap are counted once.
    """

    def __init__(self, now=time.monotonic):
        self._now, self._spans = now, []

    def __enter__(self):
        monitoring.register_event_duration_secs_listener(self.listen)
        return self

    def __exit__(self, *failure):
        monitoring.unregister_event_duration_listener(self.listen)

    def listen(self, event: str, duration_secs: float, **details: str | int) -> None:
        """Something has just ended that took so many seconds (the listener that jax calls)."""
        if not event.startswith(EVENTS):
            return
        end = self._now()
        start = end - duration_secs
        while self._spans and self._spans[-1][1] > start:  # ends are exact, starts only to some microseconds
            start = min(start, self._spans.pop()[0])
        self._spans.append((start, end))

    @property
    def seconds(self) -> float:
        """The total so far."""
        return sum(end - start for start, end in self._spans)
