"""What the main loop tells of its progress, and to whom. ``nivp_dist.report.progress`` shows it on a screen."""


class SilentReporter:
    """The face of a reporter, which says nothing: for library use, and for every process but the first."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Nothing."""

    def phase(self, name):
        """Nothing."""

    def fit(self, iteration, error, target, iterations):
        """Nothing."""

    def step(self, metrics, t_end):
        """Nothing."""

    def note(self, message):
        """Nothing."""

    def warn(self, message):
        """Nothing."""

    def output(self, t, relative_l2, estimate=None):
        """Nothing."""

    def finish(self, summary, directory):
        """Nothing."""
