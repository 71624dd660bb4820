"""The interface through which the main loop shows progress. ``nivp_dist.report.progress`` implements it on a screen."""


class SilentReporter:
    """A reporter that shows nothing: for library use, and for every process but the first."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """The run has ended, in whatever way."""

    def phase(self, name):
        """A phase begins: one of ``run.state.PHASE_NAMES``."""

    def fit(self, iteration, error, target, iterations, stop_at=0.0):
        """A round of a fit is done; iterations: the most rounds; stop_at: the error below which it stops early."""

    def step(self, metrics, t_end):
        """A step was accepted; metrics: its line of metrics.jsonl."""

    def note(self, message):
        """A message to the user."""

    def warn(self, message):
        """A warning to the user."""

    def output(self, t, relative_l2, estimate=None):
        """An output time was reached; the error is NaN without a reference."""

    def finish(self, summary, directory):
        """The run has finished."""
