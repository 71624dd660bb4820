"""Process 0 decides what the run does next, and tells the others before each collective operation."""

import math
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nivp_dist.cluster import channel, session
from nivp_dist.cluster.notice import Notice
from nivp_dist.cluster.signals import StopRequest
from nivp_dist.errors import InputError
from nivp_dist.settings.model import CheckpointSettings

GO, SAVE, STOP, EVENT = 0, 1, 2, 3
# Where the settings give no interval between saves, saves take this share of the time. Measured on a local disk, a save
# takes 0.1 s with 1e4 or 1e6 parameters, and 2 s with 1e7; steps take from 0.02 s to minutes. Saves in a thread beside
# the steps would spare at most this share, and half of it where the cores are busy.
SHARE_OF_SAVES = 0.01
LONGEST_INTERVAL = 1800.0  # seconds: no more is lost, however long a save takes, or took once on a disk in trouble
# Where stages take milliseconds, several processes need not ask process 0 before each whether to stop: it is enough to
# ask about every second. A question costs each process a request to process 0 (two processes: 0.3 ms; it grows with
# their number). MOST_UNASKED bounds how many stages go by without one, should they suddenly take longer.
UNASKED_SECONDS, MOST_UNASKED = 1.0, 16


class Control:
    """Decisions that depend on clocks and signals. They change when a run is saved or stopped, never its result.

    settings: how often to save. request: filled by the handlers of signals. clock: seconds, monotonic.
    """

    def __init__(self, settings: CheckpointSettings, request: StopRequest, clock: Callable[[], float] = time.monotonic):
        self.settings, self.request, self.clock = settings, request, clock
        self.saved_at, self.saved_step = clock(), None
        self.decided_at, self._notice = clock(), Notice()
        self._asked_at, self._polls = clock(), 0  # the last question to process 0; calls of stop_requested since
        self._stage_seconds, self._unasked = math.inf, 0  # between two of them; so many of them need not ask
        self.event = ""  # why a callback wants the run to stop; known to process 0 only
        self.began_at, self.save_seconds = clock(), 0.0  # the last command; how long the last save took

    def decide(self, step: int) -> int:
        """What to do before the next part of the run: GO (on), SAVE, STOP or EVENT. Collective.

        STOP follows a signal, EVENT the request of a callback. EVENT has priority, because a scheduler may queue a run
        again that was stopped by a signal.

        step: transitions of the run so far.
        """
        self.begin("decision")
        self.decided_at = self.clock()
        command = GO
        if channel.current().index == 0:
            if self.event:
                command = EVENT
            elif self.request.received:
                command = STOP
            elif step != self.saved_step and self._due(step):
                command = SAVE
        return self._ask(command)

    def stop_requested(self, label: str) -> bool:
        """Whether to abandon the step or fit in progress; if not, it continues with the command `label`. Collective.

        With several processes the answer is no without a question, where that was asked within a second.
        """
        self._polls += 1
        stop = self._polls > self._unasked and self._ask(bool(self.request.received))
        self.begin(label)
        return stop

    def _ask(self, answer: Any) -> Any:
        """Process 0's answer on every process, which also says how many calls of `stop_requested` need not ask."""
        here, now = channel.current(), self.clock()
        if self._polls:
            self._stage_seconds = (now - self._asked_at) / self._polls
        stage = max(self._stage_seconds, UNASKED_SECONDS / MOST_UNASKED)
        unasked = int(UNASKED_SECONDS / stage) if here.processes > 1 else 0
        answer, self._unasked = here.broadcast((answer, unasked))
        self._asked_at, self._polls = now, 0
        return answer

    def begin(self, label: str) -> None:
        """This process begins the command `label`; the watchdog's deadline starts again."""
        self.began_at = self.clock()
        session.current().begin(label)

    def saved(self, step: int, written: bool = True) -> None:
        """Called at the end of the command "save" of this step. written: whether it was not on the disk already."""
        self.saved_at, self.saved_step = self.clock(), step
        if written:
            self.save_seconds = self.saved_at - self.began_at

    def notice_warnings(self) -> list[str]:
        """Called after a step: a line if it takes, with a save, longer than the job has from its notice to its end."""
        step_seconds = self.clock() - max(self.decided_at, self.saved_at)
        return self._notice.warnings(step_seconds + self.save_seconds)

    def _due(self, step: int) -> bool:
        steps, minutes = self.settings.every_steps, self.settings.every_minutes
        if self.saved_step is None or (steps is not None and step - self.saved_step >= steps):
            return True
        seconds = None if minutes is None else 60 * minutes
        if steps is None and minutes is None:
            seconds = min(self.save_seconds / SHARE_OF_SAVES, LONGEST_INTERVAL)
        return seconds is not None and self.clock() - self.saved_at >= seconds


def from_process_zero(function: Callable[[], str]) -> str:
    """Call the function on process 0 alone and return its text on every process. Collective.

    An InputError of the function is raised on every process, so that none waits for the others.
    """
    text, error_message = "", None
    if channel.current().index == 0:
        try:
            text = function()
        except InputError as error:
            error_message = str(error)
    text, error_message = channel.current().broadcast((text, error_message))
    if error_message is not None:
        raise InputError(error_message)
    return text


def require_visible(path: Path, seconds: float = 10.0) -> None:
    """Check that every process sees a file that process 0 has just written. Collective.

    A network file system may show the file late, so each process looks for it for so many seconds. Raises InputError on
    every process if one does not see it.
    """
    deadline = time.monotonic() + seconds
    while not (seen := path.is_file()) and time.monotonic() < deadline:
        time.sleep(0.1)
    everyone = channel.current().gather((seen, socket.gethostname()))
    absent = [f"process {index} on {host}" for index, (seen, host) in enumerate(everyone) if not seen]
    if absent:
        raise InputError(
            f"{absent[0]} does not see {path}, written by process 0: run in a directory that all hosts share"
        )
