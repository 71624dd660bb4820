"""A Python script that srun, mpirun or launch/local has started in several processes, which compute a run together."""

import atexit
import os
import sys
import traceback

from nivp_dist.backend import private_api
from nivp_dist.cluster import session, topology
from nivp_dist.cluster.channel import may_be_consequence
from nivp_dist.errors import BAD_INPUT, FAILED, STOPPED_EARLY, InputError, RunFailed, RunStopped
from nivp_dist.settings.model import ClusterSettings


def join(settings: ClusterSettings) -> None:
    """Connect this process with the others of its script, if there are any. Every process calls it before each run.

    The first call connects, and arranges the end: a script that ends leaves its group, and an exception that nobody
    catches in one process ends all of them, with its cause as the last line.

    Raises InputError if jax has been started without the others, else as ``session.connect``.
    """
    if session.current().group is not None:
        return
    place = topology.detect()
    if place.processes > 1 and private_api.backends_have_started():
        raise InputError(
            f"jax was used before the run, which starts it in all {place.processes} processes of {place.launcher}: "
            "make arrays of jax, and call its functions, after the first solve or resume (numpy is free)"
        )
    session.connect(settings).is_script = True
    if session.current().group is not None:
        atexit.register(_leave)
        sys.excepthook = _end_group


def _leave() -> None:
    session.current().leave(0)


def _end_group(kind: type[BaseException], error: BaseException, trace) -> None:
    """The end of every process, because of an exception in this one. Replaces ``sys.excepthook``; does not return."""
    here, line = session.current(), f"{kind.__name__}: {error}"
    if isinstance(error, RunStopped):  # raised in every process
        os._exit(here.leave(STOPPED_EARLY, str(error)))
    consequence = may_be_consequence(error) if isinstance(error, Exception) else False
    text = "".join(traceback.format_exception(kind, error, trace))
    here.write_log(text)
    expected = isinstance(error, (InputError, RunFailed))  # its line says all
    if not consequence and not expected:
        os.write(2, text.encode())  # one write, because other processes may write at the same moment
    here.fail(str(error) if expected else line, BAD_INPUT if isinstance(error, InputError) else FAILED, consequence)
