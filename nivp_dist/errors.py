"""The exceptions whose message is one line for the user, and the exit code of a command that ends with each."""

FINISHED, FAILED, BAD_INPUT, STOPPED_EARLY = 0, 1, 2, 75  # 75 is EX_TEMPFAIL of sysexits.h: try again later


class InputError(Exception):
    """Bad input: the message names the file, the key and what to change. Raised before the compilation. Exit code 2."""


class RunFailed(Exception):
    """The run cannot continue: the message says why and what to try. Its files are kept. Exit code 1."""


class DiskFailed(RunFailed):
    """A disk refuses to be written: what has been saved is kept, and nothing more can be. Exit code 1."""


class RunStopped(Exception):
    """The run was stopped on request, after a checkpoint, and `nivp resume` continues it. Exit code 75."""
