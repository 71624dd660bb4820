"""`nivp status --watch`: the status of a run, shown again and again until the run ends. Imports no jax."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from nivp_dist.report.status import ENDED, read_status
from nivp_dist.report.status_text import event_row, status_line, status_lines

Sleep = Callable[[float], None]


def follow(
    directory: str | Path, stream: TextIO, every: float = 2.0, as_json: bool = False, sleep: Sleep = time.sleep
) -> None:
    """Show the status of a run every `every` seconds until the run ends, or until Ctrl-C.

    On a terminal the table is redrawn; anywhere else, and with as_json, a line is written whenever something changes.
    Raises InputError as ``read_status``.
    """
    try:
        if stream.isatty() and not as_json:
            _redraw(directory, Console(file=stream, highlight=False), every, sleep)
        else:
            _append(directory, stream, every, as_json, sleep)
    except KeyboardInterrupt:
        pass


def _redraw(directory: str | Path, console: Console, every: float, sleep: Sleep) -> None:
    facts = read_status(directory)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(Text("\n".join(status_lines(facts)), no_wrap=True, overflow="ellipsis"), refresh=True)
            if facts["status"] in ENDED:
                break
            sleep(every)
            facts = read_status(directory)
    console.print(Text("\n".join(status_lines(facts))), soft_wrap=True)


def _append(directory: str | Path, stream: TextIO, every: float, as_json: bool, sleep: Sleep) -> None:
    last_line, last_events = None, []
    while True:
        facts = read_status(directory)
        line = status_line(facts)
        events = [event for event in facts["events"] if event not in last_events]
        if line != last_line or events:
            if as_json:
                stream.write(json.dumps(facts) + "\n")
            else:
                rows = [": ".join(event_row(event)) for event in events] + [line]
                stream.write("".join(f"{time.strftime('%H:%M:%S')} {row}\n" for row in rows))
            stream.flush()
        last_line, last_events = line, facts["events"]
        if facts["status"] in ENDED:
            return
        sleep(every)
