"""How long a run has spent on building its programs: tracing, lowering and compiling them."""

import time

from jax import monitoring

EVENTS = "/jax/core/compile/"  # jaxpr_trace_duration, jaxpr_to_mlir_module_duration, backend_compile_duration


class CompileClock:
    """Seconds of this process inside the context, each counted once: with the trace of a program those of the functions
    inside it are reported, one by one, the innermost first."""

    def __init__(self, now=time.monotonic):
        self._now, self._spans = now, []

    def __enter__(self):
        monitoring.register_event_duration_secs_listener(self.listen)
        return self

    def __exit__(self, *failure):
        monitoring.unregister_event_duration_listener(self.listen)

    def listen(self, event: str, duration: float, **details) -> None:
        """Something has just ended that took `duration` seconds."""
        if not event.startswith(EVENTS):
            return
        end = self._now()
        start = end - duration
        while self._spans and self._spans[-1][1] > start:  # by its end: starts are known to some microseconds only
            start = min(start, self._spans.pop()[0])
        self._spans.append((start, end))

    @property
    def seconds(self) -> float:
        return sum(end - start for start, end in self._spans)
