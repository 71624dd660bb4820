"""A stream that says that it is a terminal."""

import io


class Terminal(io.StringIO):
    def isatty(self):
        return True
