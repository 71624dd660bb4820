"""When a process must send a sign of life, and which other processes have sent none for too long."""

import time

from nivp_dist.cluster.connection import Peer

BEATS = 15  # signs of life within the time after which a silent process is given up


class Liveness:
    """silence_seconds: a peer from which nothing was received for so long is lost."""

    def __init__(self, silence_seconds: float):
        self.silence_seconds, self.interval = silence_seconds, silence_seconds / BEATS
        self._last_beat = self._last_check = time.monotonic()

    def beat_is_due(self) -> bool:
        """Whether it is time to send a sign of life; if so, the next one is due an interval later."""
        now = time.monotonic()
        if now - self._last_beat <= self.interval:
            return False
        self._last_beat = now
        return True

    def silent(self, peers: dict[int, Peer]) -> list[int]:
        """The indices of the peers that have been silent for too long.

        If much time has passed since the last call, this process itself was suspended (by its scheduler, say), and
        the silence of the others means nothing: their time begins anew.
        """
        now = time.monotonic()
        if now - self._last_check > self.silence_seconds / 3:
            for peer in peers.values():
                peer.last_message = now
        self._last_check = now
        return [index for index, peer in peers.items() if now - peer.last_message > self.silence_seconds]
