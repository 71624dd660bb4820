"""abort() of native code, held up for as long as the group needs to say why it ends.

JAX's client aborts its process a tenth of a second after it has lost process 0, from a thread of its own and with a
stack in place of a cause; the callback that would replace this raises std::bad_cast (jaxlib 0.10.2).
"""

import ctypes
import signal

SECONDS = int(signal.SIGABRT)  # a handler is called with the signal's number, and sleep() takes it for seconds: 6


def hold_up() -> None:
    """From here on a thread that aborts sleeps for SECONDS first, the others go on; then the process dies all the same.

    sleep() itself is the handler: it runs at once on the thread that aborts, needs no interpreter, and is safe in a
    handler (POSIX). One of ``faulthandler``, installed later, writes its stacks and hands over to it.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))
