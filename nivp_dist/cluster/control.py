"""Process 0 decides, everyone obeys: one small command, broadcast before anything that is collective."""

import socket
import time
from pathlib import Path
from typing import Callable

from nivp_dist.cluster import channel, session
from nivp_dist.cluster.signals import StopRequest
from nivp_dist.errors import InputError
from nivp_dist.settings.model import CheckpointSettings

GO, SAVE, STOP = 0, 1, 2


class Control:
    """Decisions that look at clocks and signals. Neither can change a result, only when it is saved."""

    def __init__(self, settings: CheckpointSettings, request: StopRequest, clock: Callable[[], float] = time.monotonic):
        self.settings, self.request, self.clock = settings, request, clock
        self.saved_at, self.saved_step = clock(), None

    def decide(self, step: int) -> int:
        """What to do before the next program of the run: GO, SAVE or STOP. Collective."""
        self.begin("decision")
        command = GO
        if channel.current().index == 0:
            if self.request.received:
                command = STOP
            elif step != self.saved_step and self._due(step):
                command = SAVE
        return channel.current().broadcast(command)

    def stop_requested(self, label: str) -> bool:
        """Whether to leave the step or fit in progress, which goes on with `label`. Collective."""
        stop = channel.current().broadcast(bool(self.request.received))
        self.begin(label)
        return stop

    def begin(self, label: str) -> None:
        """All processes now do this: the deadline runs anew."""
        session.current().command(label)

    def saved(self, step: int) -> None:
        """To be told of every save."""
        self.saved_at, self.saved_step = self.clock(), step

    def _due(self, step: int) -> bool:
        if self.saved_step is None or step - self.saved_step >= self.settings.every_steps:
            return True
        return self.clock() - self.saved_at >= 60 * self.settings.every_minutes


def from_process_zero(function: Callable[[], str]) -> str:
    """function() run on process 0 alone, its text on every process. Collective.

    An InputError there is raised here on every process, so that none waits for the others.
    """
    text, mistake = "", None
    if channel.current().index == 0:
        try:
            text = function()
        except InputError as error:
            mistake = str(error)
    text, mistake = channel.current().broadcast((text, mistake))
    if mistake is not None:
        raise InputError(mistake)
    return text


def require_visible(path: Path, seconds: float = 10.0) -> None:
    """That every process sees a file which process 0 has just written. Collective.

    A network file system may show it late. Raises InputError on every process if one does not see it.
    """
    deadline = time.monotonic() + seconds
    while not (seen := path.is_file()) and time.monotonic() < deadline:
        time.sleep(0.1)
    everyone = channel.current().gather((seen, socket.gethostname()))
    blind = [f"process {index} on {host}" for index, (seen, host) in enumerate(everyone) if not seen]
    if blind:
        raise InputError(
            f"{blind[0]} does not see {path}, written by process 0: run in a directory that all hosts share"
        )
