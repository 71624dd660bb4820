"""A sign of life in the run directory, for those who cannot see its lock: login nodes, and hosts of a file system
without locks. Decides nothing of a result."""

import contextlib
import json
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import NamedTuple

from nivp_dist.storage.files import write_whole

FILE = ".alive"
EVERY = 15.0  # seconds between two beats
ALIVE = 60.0  # seconds: an older one is that of a run that is gone, or that hangs
SKEW = 300.0  # seconds that the clocks of two hosts may differ, for those who would start a second run


class Beat(NamedTuple):
    """Who holds a run directory, and when it was last heard of, by its own clock."""

    host: str
    pid: int
    job: str | None
    time: float

    @property
    def age(self) -> float:
        """In seconds, by our clock."""
        return time.time() - self.time

    @property
    def elsewhere(self) -> bool:
        """Whether on another host, where our locks may not reach."""
        return self.host != socket.gethostname()

    def __str__(self):
        return f"process {self.pid} on {self.host}" + (f" (job {self.job})" if self.job else "")


class Heart:
    """Beats from a thread of its own while it is held open. A beat that cannot be written is left out.

    may_write: asked before every beat; a directory that is another run's by now is left alone.
    """

    def __init__(self, directory: Path, may_write):
        self.path, self._may_write, self._stop = Path(directory) / FILE, may_write, threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self):
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(1.0)  # not longer: the file system may hang
        with contextlib.suppress(OSError):
            if self._may_write():
                self.path.unlink()

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            self._beat()

    def _beat(self) -> None:
        with contextlib.suppress(OSError):
            if self._may_write():
                beat = Beat(socket.gethostname(), os.getpid(), os.environ.get("SLURM_JOB_ID"), time.time())
                write_whole(self.path, json.dumps(beat._asdict()) + "\n")


def read(directory: str | Path) -> Beat | None:
    """The last beat, or None: there is none, or it cannot be read."""
    try:
        return Beat(**json.loads((Path(directory) / FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def still_beating(directory: str | Path, locks: bool) -> Beat | None:
    """The beat of another run that goes on in the directory; None if there is none. Waits two beats if in doubt.

    locks: whether those of this host can be relied on among its own processes.
    """
    first = read(directory)
    if first is None or abs(first.age) > SKEW or (locks and not first.elsewhere):
        return None
    logging.getLogger(__name__).warning(
        "%s: %s was heard of %.0f s ago: waiting to see whether it goes on", directory, first, first.age
    )
    for _ in range(5):
        time.sleep(EVERY / 2)
        beat = read(directory)
        if beat is not None and beat != first:
            return beat
    return None
