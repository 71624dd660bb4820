"""`nivp status --watch`: the status of a run, shown again and again until the run ends. Imports no jax."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nivp_dist.report.status import ENDED, read_status
from nivp_dist.report.status_text import event_row, status_line, status_lines

STATUS_WIDTH = 66  # columns for the status, where something else stands beside it
WIDE = 132  # columns from which there is room for that; on a narrower terminal it stands above
GAP = 2  # columns between the two

Facts = dict[str, Any]  # as read_status returns them
Sleep = Callable[[float], None]


class Screen:
    """What is shown of a run that is followed: its status. ``report.watch`` has one that shows more."""

    def __init__(self) -> None:
        self._line, self._events = "", []

    def parts(self, facts: Facts, width: int, height: int) -> list[Text]:
        """On a terminal of this size, the parts of a screen: what is shown beside the status, and the status."""
        return [Text("\n".join(status_lines(facts)))]

    def news(self, facts: Facts) -> list[str]:
        """In a log: what has changed since the last call, as lines."""
        line, events = status_line(facts), [event for event in facts["events"] if event not in self._events]
        changed = line != self._line or events
        self._line, self._events = line, facts["events"]
        return [": ".join(event_row(event)) for event in events] + [line] if changed else []


def room(width: int) -> int:
    """The columns, of a terminal of this width, for what is shown beside the status or above it."""
    return width if width < WIDE else width - STATUS_WIDTH - GAP


def follow(
    directory: str | Path,
    stream: TextIO,
    every: float = 2.0,
    as_json: bool = False,
    sleep: Sleep = time.sleep,
    screen: Screen | None = None,
) -> None:
    """Show the status of a run every `every` seconds until the run ends, or until Ctrl-C.

    On a terminal the screen is redrawn; anywhere else, and with as_json, lines are written whenever something changes.
    Raises InputError as ``read_status``.
    """
    screen = Screen() if screen is None else screen
    try:
        if stream.isatty() and not as_json:
            _redraw(directory, Console(file=stream, highlight=False), every, sleep, screen)
        else:
            _append(directory, stream, every, as_json, sleep, screen)
    except KeyboardInterrupt:
        pass


def _redraw(directory: str | Path, console: Console, every: float, sleep: Sleep, screen: Screen) -> None:
    facts = read_status(directory)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(_arranged(screen.parts(facts, *console.size), console.width), refresh=True)
            if facts["status"] in ENDED:
                break
            sleep(every)
            facts = read_status(directory)
    for part in screen.parts(facts, *console.size):
        console.print(part, soft_wrap=True)


def _arranged(parts: list[Text], width: int) -> Table | Group:
    """The parts of a screen beside each other where there is room, cut at its edge."""
    for part in parts:
        part.no_wrap, part.overflow = True, "ellipsis"
    if width < WIDE or len(parts) == 1:
        return Group(*parts)
    grid = Table.grid(padding=(0, GAP))
    grid.add_column(width=room(width))
    grid.add_row(*parts)
    return grid


def _append(directory: str | Path, stream: TextIO, every: float, as_json: bool, sleep: Sleep, screen: Screen) -> None:
    while True:
        facts = read_status(directory)
        if rows := screen.news(facts):
            lines = [json.dumps(facts)] if as_json else [f"{time.strftime('%H:%M:%S')} {row}" for row in rows]
            stream.write("".join(f"{line}\n" for line in lines))
            stream.flush()
        if facts["status"] in ENDED:
            return
        sleep(every)
