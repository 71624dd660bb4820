"""Process 0 decides, everyone obeys: one small command, broadcast before anything that is collective."""

import time
from typing import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from nivp_dist.cluster.signals import StopRequest
from nivp_dist.config import CheckpointSettings
from nivp_dist.errors import InputError

GO, SAVE, STOP = 0, 1, 2


class Control:
    """Decisions that look at clocks and signals. Neither can change a result, only when it is saved."""

    def __init__(self, settings: CheckpointSettings, request: StopRequest, clock: Callable[[], float] = time.monotonic):
        self.settings, self.request, self.clock = settings, request, clock
        self.saved_at, self.saved_step = clock(), None

    def decide(self, step: int) -> int:
        """What to do before the next program of the run: GO, SAVE or STOP. Collective."""
        command = GO
        if jax.process_index() == 0:
            if self.request.received:
                command = STOP
            elif step != self.saved_step and self._due(step):
                command = SAVE
        return agree(command)

    def stop_requested(self) -> bool:
        """Whether to leave the step or fit in progress. Collective."""
        return bool(agree(STOP if self.request.received else GO) == STOP)

    def saved(self, step: int) -> None:
        """To be told of every save."""
        self.saved_at, self.saved_step = self.clock(), step

    def _due(self, step: int) -> bool:
        if self.saved_step is None or step - self.saved_step >= self.settings.every_steps:
            return True
        return self.clock() - self.saved_at >= 60 * self.settings.every_minutes


def agree(value: int) -> int:
    """Process 0's value, on every process. Collective."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def from_process_zero(function: Callable[[], str]) -> str:
    """function() run on process 0 alone, its text on every process. Collective.

    An InputError there is raised here on every process, so that none waits for the others.
    """
    if jax.process_count() == 1:
        return function()
    failed, text = 0, ""
    if jax.process_index() == 0:
        try:
            text = function()
        except InputError as error:
            failed, text = 1, str(error)
    data = np.zeros(4096, np.uint8)
    encoded = text.encode()[: len(data) - 8]
    data[0], data[1:5] = failed, np.frombuffer(np.uint32(len(encoded)).tobytes(), np.uint8)
    data[5 : 5 + len(encoded)] = np.frombuffer(encoded, np.uint8)
    data = np.asarray(multihost_utils.broadcast_one_to_all(data))
    length = int(np.frombuffer(data[1:5].tobytes(), np.uint32)[0])
    text = data[5 : 5 + length].tobytes().decode()
    if data[0]:
        raise InputError(text)
    return text
