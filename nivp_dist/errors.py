"""The exceptions that carry one clear line to the user, and the exit code that goes with each."""

FINISHED, FAILED, BAD_INPUT, STOPPED_EARLY = 0, 1, 2, 75


class InputError(Exception):
    """Bad input: one line that names the file, the key and the mend. Exit code 2, before compilation."""


class RunFailed(Exception):
    """The run cannot go on: one line that says why and what to try. What it has is kept. Exit code 1."""


class DiskFailed(RunFailed):
    """The disk refuses: what has been saved is kept, nothing more can be. Exit code 1."""


class RunStopped(Exception):
    """Stopped early on request, with a checkpoint; `nivp resume` goes on. Exit code 75."""
