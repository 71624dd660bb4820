"""Actions that may hang for ever, because the file system or the launcher behind a file does."""

import threading
from typing import Callable


def within(seconds: float, action: Callable[[], object]) -> None:
    """Do it in a thread that is waited for so long and no longer: what hangs must not keep a process from ending."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(seconds)
