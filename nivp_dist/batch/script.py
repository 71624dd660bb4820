"""The job script of a run or of a sweep: a template in slurm/ with the options filled in."""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from nivp_dist.batch.resources import Resources
from nivp_dist.batch.scheduler import Scheduler
from nivp_dist.batch.schedulers import SLURM
from nivp_dist.batch.site import CONTROL_CHARACTER, SiteSettings
from nivp_dist.errors import InputError
from nivp_dist.settings.files import shipped

_PLACEHOLDER = re.compile(r"@([A-Z]+)@")
_BLOCK = re.compile(r"#@(BEGIN|END) ([A-Z]+)@")


def render(
    directory: Path,
    asked: Resources,
    site: SiteSettings,
    keys: dict[str, str] | None = None,
    tasks: list[int] | None = None,
    scheduler: Scheduler = SLURM,
    path: Path | None = None,
) -> str:
    """The script that continues the run in a directory, or the given tasks of the sweep in it.

    keys: settings that `nivp resume` changes, dotted key -> value as text. path: where the script is going to be; by
    default, where the first one of the directory is.
    Raises InputError if the directory or a setting holds a control character, which could end a line of the script, or
    if the scheduler cannot express something that is asked for.
    """
    _refuse_control_characters("the run directory", str(directory), "choose another with --output")
    for key, value in (keys or {}).items():
        _refuse_control_characters(f"--{key}", value, "remove it")
    scheduler.require_possible(directory, asked)
    path = path or directory / f"job-001.{scheduler.suffix}"
    chain = asked.chain is not None
    values = scheduler.values(directory, asked, site, tasks) | {
        "TEMPLATE": None,
        "TITLE": scheduler.title,
        "LAUNCHER": scheduler.launcher(site),
        "MODULE": [shlex.quote(module) for module in site.modules],
        "EXPORT": [f"{name}={shlex.quote(value)}" for name, value in site.environment.items()],
        "SETUP": site.setup,
        "PYTHON": _python(site),
        "KEYS": [f"--{key} {shlex.quote(value)}" for key, value in (keys or {}).items()],
        "REQUEUE": None if chain else "",
        "REQUEUES": asked.requeues,
        "CHAIN": "" if chain else None,
        "SCRIPT": path,
        "SUBMISSION": path.name,
    }
    return fill(_read(f"job.{scheduler.suffix}"), values)


def _read(name: str) -> str:
    """A template with the files that it includes."""
    text = (shipped("slurm") / name).read_text("utf-8")
    return re.sub(r"^#@INCLUDE ([\w.]+)@\n", lambda match: _read(match[1]), text, flags=re.MULTILINE)


def fill(template: str, values: dict[str, Any]) -> str:
    """The template with @NAME@ replaced, at most one name in a line.

    A line whose value is None is left out, and so are the lines from #@BEGIN NAME@ to #@END NAME@. A line whose value
    is a list is repeated for each of its entries.
    """
    lines: list[str] = []
    left_out = ""  # the name of the block that is being left out
    for line in template.splitlines():
        if block := _BLOCK.fullmatch(line):
            begins = block[1] == "BEGIN" and values[block[2]] is None
            left_out = left_out or (block[2] if begins else "")
            left_out = "" if block[1] == "END" and left_out == block[2] else left_out
        elif not left_out:
            lines += _filled(line, values)
    return "\n".join(lines) + "\n"


def _filled(line: str, values: dict[str, Any]) -> list[str]:
    """The lines that a line of a template becomes."""
    placeholder = _PLACEHOLDER.search(line)
    if placeholder is None:
        return [line]
    value = values[placeholder[1]]
    entries = value if isinstance(value, list) else [value]
    return [line.replace(placeholder[0], str(entry)) for entry in entries if entry is not None]


def _refuse_control_characters(what: str, text: str, advice: str) -> None:
    if CONTROL_CHARACTER.search(text):
        raise InputError(f"{what} holds a line break or another control character, {json.dumps(text)}: {advice}")


def _python(site: SiteSettings) -> str:
    if site.container is None:
        return shlex.quote(site.python or sys.executable)
    return f"{site.container} {shlex.quote(site.python or 'python')}"
