"""A heartbeat in the run directory: a small file that its holder writes again and again.

It shows that the run is alive to those who cannot see the lock: login nodes, and hosts of a file system without locks.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from nivp_dist.settings.job_environment import JOB_IDS
from nivp_dist.storage.files import write_whole

FILE = ".alive"
EVERY = 15.0  # seconds between two beats
ALIVE = 60.0  # seconds: a run whose last beat is older has ended, or hangs; a slow disk may delay three beats
SKEW = 300.0  # seconds that the clocks of two hosts may differ before a beat of the one means nothing to the other
BEATS_WAITED_FOR = 2.5  # before a second run takes a directory whose holder may be alive


class Beat(NamedTuple):
    """Who holds a run directory, and the time of its last beat, by its own clock."""

    host: str
    pid: int
    job: str | None
    time: float

    @property
    def age(self) -> float:
        """Seconds since the beat, by the clock of this host."""
        return time.time() - self.time

    @property
    def recent(self) -> bool:
        """Whether the run is alive by this beat. One from further in the future than clocks differ says nothing."""
        return -SKEW < self.age < ALIVE

    @property
    def elsewhere(self) -> bool:
        """Whether the holder is on another host, whose locks may be invisible here."""
        return self.host != socket.gethostname()

    def __str__(self):
        return f"process {self.pid} on {self.host}" + (f" (job {self.job})" if self.job else "")


class Heart:
    """Writes a beat every EVERY seconds, from a thread of its own, while the context is open.

    A beat that cannot be written is left out. may_write: called before every beat, () -> whether the directory still
    belongs to this run.
    """

    def __init__(self, directory: Path, may_write: Callable[[], bool]):
        self.path, self._may_write, self._stop = Path(directory) / FILE, may_write, threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self):
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(1.0)  # no longer, because the file system may hang
        with contextlib.suppress(OSError):
            if self._may_write():
                self.path.unlink()

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            self._beat()

    def _beat(self) -> None:
        with contextlib.suppress(OSError):
            if self._may_write():
                job = next(filter(None, map(os.environ.get, JOB_IDS)), None)
                beat = Beat(socket.gethostname(), os.getpid(), job, time.time())
                write_whole(self.path, json.dumps(beat._asdict()) + "\n")


def read(directory: str | Path) -> Beat | None:
    """The last beat; None if there is none, or if it cannot be read."""
    try:
        return Beat(**json.loads((Path(directory) / FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def still_beating(directory: str | Path, locks: bool) -> Beat | None:
    """The beat of another run that is alive in the directory; None if there is none.

    locks: whether file locks work here; then a holder on this host would have been seen by its lock. Where the last
    beat leaves it open whether the run is alive, the next beats are waited for (up to 40 s).
    """
    first = read(directory)
    if first is None or abs(first.age) > SKEW or (locks and not first.elsewhere):
        return None
    logging.getLogger(__name__).warning(
        "%s: %s was alive %.0f s ago: waiting to see whether it still is", directory, first, first.age
    )
    for _ in range(int(2 * BEATS_WAITED_FOR)):
        time.sleep(EVERY / 2)
        beat = read(directory)
        if beat is not None and beat != first:
            return beat
    return None
