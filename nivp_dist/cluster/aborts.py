"""A delay before abort() ends this process, so that the group has time to report why it ends.

The client of JAX's coordination service aborts its process a tenth of a second after it has lost process 0. It does so
in a thread of its own, and prints a stack instead of a cause. The callback with which JAX lets one replace this raises
std::bad_cast (jaxlib 0.10.2).
"""

import ctypes
import signal

DELAY = 6  # seconds; not free to choose, see ``delay_aborts``


def delay_aborts() -> None:
    """From now on a thread that calls abort() first sleeps for DELAY seconds while the other threads go on.

    The signal handler is the C function sleep(), because a handler in Python would need the interpreter, which the main
    thread may hold. The system calls a handler with the number of the signal, which is 6 for SIGABRT, and sleep() takes
    that number for seconds. After the handler has returned, abort() ends the process as usual. A handler that
    ``faulthandler`` installs later writes the stacks and then calls this one.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))
