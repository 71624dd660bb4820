"""`nivp bench speed`: measures sections one after another, prints their tables, and keeps one JSON file up to date."""

import json
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import jax

from nivp_dist import backend  # noqa: F401
from nivp_dist.bench import machine, roofline
from nivp_dist.bench.sections import Options, sections
from nivp_dist.bench.text import flops_text
from nivp_dist.errors import InputError
from nivp_dist.storage.files import write_whole
from nivp_dist.storage.metrics import plain


def run(names: tuple[str, ...], output: str | None, quick: bool, write: Callable[[str], None]) -> dict:
    """Measure the sections of these names (default: all) and print a table for each.

    output: a new JSON file, written again after each section. quick: small sizes. write: takes lines of text. Returns
    what the file holds.

    Raises InputError for an unknown section, and for a file that exists already.
    """
    known = sections()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"bench speed: there is no section '{unknown[0]}'; there are {', '.join(known)}, gpu")
    path = Path(output) if output else None
    if path is not None and path.exists():
        raise InputError(f"{path} exists and is not overwritten: name another file with --output")
    report = {"machine": describe_machine(), "quick": quick, "sections": {}}
    for line in machine_lines(report["machine"]):
        write(line)
    for name in names or known:
        started = time.perf_counter()
        # The rates are measured again for every section, because other work on the machine comes and goes.
        rates = roofline.measure(quick)
        write("")
        single, double = (flops_text(rates.flops[dtype]) for dtype in ("float32", "float64"))
        bandwidth = f"{rates.bandwidth / 1e9:.3g} GB/s"
        write(f"{name}: matrix products at {single} in float32, {double} in float64; memory at {bandwidth}")
        found = known[name](Options(quick, rates, write))
        seconds = time.perf_counter() - started
        report["sections"][name] = {"roofline": rates._asdict(), "seconds": seconds} | found
        if path is not None:
            write_whole(path, json.dumps(plain(report), indent=1, allow_nan=False) + "\n")
    if path is not None:
        write(f"\n{path}")
    return report


def describe_machine() -> dict:
    """The machine, its devices and load, the versions of the packages, and the date."""
    return machine.describe() | {
        "host": platform.node(),
        "load": os.getloadavg()[0],
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "versions": machine.versions(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def machine_lines(facts: dict) -> list[str]:
    """The facts of ``describe_machine`` for the screen, with a warning if the machine is not idle."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    lines = [f"{facts['processor']}, {facts['cores']} cores, {len(facts['devices'])} {facts['backend']} device(s)"]
    lines += [f"python {facts['python']}, {versions}"]
    if facts["backend"] == "cpu" and facts["load"] > 0.5 * facts["cores"]:
        lines.append(f"the machine is not idle (load {facts['load']:.1f}): ratios are still comparable, times are not")
    return lines
