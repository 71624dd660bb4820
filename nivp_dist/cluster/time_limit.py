"""Actions that may never return, because a file system or the reader of a pipe hangs."""

import threading
from collections.abc import Callable


def run_within(seconds: float, action: Callable[[], object]) -> None:
    """Run the action in a daemon thread and wait for it, but not longer than so many seconds.

    An action that hangs is left behind in its thread, so that it cannot keep this process from ending.
    """
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(seconds)
