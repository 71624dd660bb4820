"""The exceptions whose message is one line for the user, and the exit code of a command that ends with each."""

FINISHED, FAILED, BAD_INPUT = 0, 1, 2
# Of sysexits.h: EX_UNAVAILABLE, a process of the run was killed or its host is lost; EX_TEMPFAIL, try again later.
PROCESS_LOST, STOPPED_EARLY = 69, 75


class InputError(Exception):
    """Bad input: the message names the file, the key and what to change. Raised before the compilation. Exit code 2."""


class RunFailed(Exception):
    """The run cannot continue: the message says why and what to try. Its files are kept. Exit code 1."""


class StepTooShort(RunFailed):
    """No step is accepted, down to integrator.min_step. Exit code 1."""


class DiskFailed(RunFailed):
    """A disk refuses to be written: what has been saved is kept, and nothing more can be. Exit code 1."""


class RunStopped(Exception):
    """The run was stopped on request, after a checkpoint, and `nivp resume` continues it. Exit code 75."""
