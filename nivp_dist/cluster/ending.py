"""The last acts of a process whose run has failed: write the cause, tell the others."""

import os
import sys
import time
from collections.abc import Callable, Iterable

from nivp_dist.cluster.connection import Connection
from nivp_dist.cluster.logs import discard_output, screen_of_errors
from nivp_dist.cluster.time_limit import run_within

WRITE_SECONDS = 2.0  # for a line to reach its file; the file system may be what hangs
CLOSE_SECONDS = 1.0  # for the other processes to end


def write_cause(cause: str, write_log: Callable[[str], object], on_screen: bool, what: str = "the group") -> None:
    """Write the cause into the log and, if so wanted, as the last line on standard error. Never hangs.

    what: that which ends, in the log.
    """
    line = " ".join(cause.split())
    if on_screen:
        run_within(WRITE_SECONDS, sys.stdout.flush)
        run_within(WRITE_SECONDS, lambda: _write_last_line(f"nivp: {line}\n"))
    run_within(WRITE_SECONDS, lambda: write_log(f"{what} ends: {line}"))


def end_others(connections: Iterable[Connection], cause: str, code: int) -> None:
    """Tell the other processes to end, and wait for a moment until they have."""
    # Launchers kill all processes at the first exit code that is not 0: the line above must be out by then.
    time.sleep(0.1)
    connections = list(connections)
    for connection in connections:
        connection.send({"end": cause, "code": code})
    deadline = time.monotonic() + CLOSE_SECONDS
    while time.monotonic() < deadline and any(connection.read()[1] for connection in connections):
        time.sleep(0.01)


def _write_last_line(text: str) -> None:
    """Write to standard error, then discard everything that libraries or other threads write there afterwards.

    Standard error is redirected first and the line written to a copy, so that nothing can come between.
    """
    number = screen_of_errors()
    screen = os.dup(number)
    discard_output(number)
    os.write(screen, text.encode())
    os.close(screen)
