"""`nivp bench speed`: the sections, their tables, and one JSON file."""

import json
import os
import platform
import statistics
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Callable

import jax

from nivp_dist import backend  # noqa: F401
from nivp_dist.bench import (
    cases,
    end_to_end,
    fit,
    gpu,
    growth,
    laplacian,
    precision,
    products,
    roofline,
    scaling,
    velocity,
)
from nivp_dist.errors import InputError
from nivp_dist.formatting import number
from nivp_dist.storage.files import write_whole
from nivp_dist.storage.metrics import plain

WIDTHS = {"problem": 18, "CG": 20}  # of columns; eight characters otherwise
PACKAGES = ("nivp_dist", "jax", "jaxlib", "flax", "optax", "numpy", "scipy")


def run(sections: tuple[str, ...], output: str | None, quick: bool, trace: str | None, say: Callable[[str], None]):
    """Measure the sections (default: all but gpu), print a table each, and keep the JSON file up to date.

    Raises InputError: an unknown section, or a file that is there already.
    """
    chosen = sections or tuple(name for name in SECTIONS if name != "gpu")
    unknown = [name for name in chosen if name not in SECTIONS]
    if unknown:
        raise InputError(f"bench speed: there is no section '{unknown[0]}'; there are {', '.join(SECTIONS)}")
    path = Path(output) if output else None
    if path is not None and path.exists():
        raise InputError(f"{path} exists and is not overwritten: name another file with --output")
    report = {"machine": machine(), "quick": quick, "sections": {}}
    for line in machine_lines(report["machine"]):
        say(line)
    for name in chosen:
        started = time.perf_counter()
        # What the machine can do is measured again beside every section: other work on it comes and goes.
        rates = roofline.measure(quick)
        say("")
        say(f"{name}: matrix products at {_rate(rates.flops['float32'])} in float32, {_rate(rates.flops['float64'])} "
            f"in float64; memory at {rates.bandwidth / 1e9:.3g} GB/s")  # fmt: skip
        found = SECTIONS[name](quick, rates, say) if name != "gpu" else _gpu(quick, trace, say)
        seconds = time.perf_counter() - started
        report["sections"][name] = {"roofline": rates._asdict(), "seconds": seconds} | found
        if path is not None:
            write_whole(path, json.dumps(plain(report), indent=1, allow_nan=False) + "\n")
    if path is not None:
        say(f"\n{path}")
    return report


def machine() -> dict:
    """Where and with what this was measured."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = ""
    if Path("/proc/cpuinfo").exists():
        lines = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else ""
    return {
        "host": platform.node(),
        "processor": model or platform.processor() or platform.machine(),
        "cores": cpus,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load": os.getloadavg()[0],
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def machine_lines(facts: dict) -> list[str]:
    """The same for the screen, with a warning if the machine is not idle."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    lines = [f"{facts['processor']}, {facts['cores']} cores, {len(facts['devices'])} {facts['backend']} device(s)"]
    lines += [f"python {facts['python']}, {versions}"]
    if facts["backend"] == "cpu" and facts["load"] > 0.5 * facts["cores"]:
        lines.append(f"the machine is not idle (load {facts['load']:.1f}): ratios are still fair, times are not")
    return lines


class Table:
    """Aligned columns, numbers to the right; a row is said as soon as it is known."""

    def __init__(self, columns: tuple[str, ...], say: Callable[[str], None]):
        self.say, self.widths = say, [max(len(name), WIDTHS.get(name, 8)) for name in columns]
        self.row(*columns)

    def row(self, *entries) -> None:
        text = [entry if isinstance(entry, str) else number(entry) for entry in entries]
        self.say("  " + "  ".join(entry.rjust(width) for entry, width in zip(text, self.widths)).rstrip())


# ---------------------------------------------------------------------------------------------- sections


def _products(quick: bool, rates, say) -> dict:
    rows, grid = [], products.cases(quick)
    say("times that of ours: (a) differentiated again, (b) stored linearisation, (c) explicit J")
    for title, sketches, more in (
        ("product M v", False, (products.IN_A_LOOP,)),
        ("sketch: ours of K, in float64, the others M Omega", True, (products.MADE, products.COLUMNS)),
    ):
        say(title)
        columns = ("width", "n", "d", "p", "rank", "dtype", "ours", "a", "b", "c", *more, "best")
        shown = Table((*columns, "of matmul", "of roofline"), say)
        for case in (case for case in grid if bool(case.rank) == sketches):
            row = products.measure(case, rates, 3 if quick else 7)
            rows.append(row)
            shown.row(
                *(row[name] for name in columns[:6]),
                _time(row["seconds"]["ours"]),
                *(_times(row["ratio"].get(name)) for name in ("a", "b", "c", *more, row["best"])),
                f"{row['share_of_matmul_rate']:.0%}",
                f"{row['share_of_roofline']:.0%}",
            )
    found = {"rows": rows, "summary": summary(rows)}
    for name, values in found["summary"].items():
        say(f"  {name}: " + ", ".join(f"{key} {number(value)}" for key, value in values.items()))
    return found


def summary(rows: list[dict]) -> dict:
    """Medians over the grid; "least": ours against the best of the others where it is slowest, and the cases where it
    is slower by more than a tenth."""
    found = {}
    for kind, dtype in sorted({("sketch" if row["rank"] else "product", row["dtype"]) for row in rows}):
        some = [row for row in rows if bool(row["rank"]) == (kind == "sketch") and row["dtype"] == dtype]
        ratios = {name: [row["ratio"][name] for row in some if name in row["ratio"]] for name in ("a", "b", "c")}
        best = [row["ratio"][row["best"]] for row in some]
        found[f"{kind} {dtype}"] = {
            f"median {name}": statistics.median(values) for name, values in ratios.items() if values
        } | {"least": min(best), "slower": sum(ratio < 1 / 1.1 for ratio in best), "cases": len(some)}
    return found


def _velocity(quick: bool, rates, say) -> dict:
    size, rows = velocity.QUICK if quick else velocity.FULL, []
    columns = ("problem", "p", "n", "published", "error", "ours", "error", "method", "CG", "ratio", "pcg", "ratio")
    shown = Table(columns, say)
    for name in cases.RIGHT_HAND_SIDES:
        row = velocity.measure(name, size, 3)
        rows.append(row)
        shown.row(
            *(row["problem"], row["p"], row["n"], _time(row["seconds"]["published"]), row["error"]["published"]),
            *(_time(row["seconds"]["auto"]), row["error"]["auto"], row["ours"]["auto"]["method"]),
            *("/".join(map(str, row["ours"]["auto"]["iterations"])), _times(row["ratio"]["auto"])),
            *(_time(row["seconds"]["pcg"]), _times(row["ratio"]["pcg"])),
        )
    return {"rows": rows}


def _precision(quick: bool, rates, say) -> dict:
    size, rows = velocity.QUICK if quick else precision.FULL, []
    columns = ("problem", "p", "n", "mu", "precision", "error of M v", "CG", "residual", "error", "time", "ratio")
    shown = Table(columns, say)
    for name in precision.PROBLEMS:
        for row in precision.measure(name, size, 3):
            rows.append(row)
            shown.row(
                *(row["problem"], row["p"], row["n"], row["mu"], row["precision"], row["product_error"]),
                *(
                    str(row["iterations"]),
                    row["cg_residual"],
                    row["error"],
                    _time(row["seconds"]),
                    _times(row["ratio"]),
                ),
            )
    return {"rows": rows}


def _fit(quick: bool, rates, say) -> dict:
    size, rows = fit.QUICK if quick else fit.FULL, []
    shown = Table(("problem", "p", "relative error", "Gauss-Newton", "Adam", "ratio"), say)
    for name in fit.PROBLEMS:
        row = fit.measure(name, size)
        rows.append(row)
        for line in row["targets"]:
            ratio = ("> " if line["lower_bound"] else "") + _times(line["ratio"])
            shown.row(row["problem"], row["p"], line["error"], _time(line["ours"]), _time(line["adam"]), ratio)
    return {"rows": rows}


def _end_to_end(quick: bool, rates, say) -> dict:
    tasks, rows = end_to_end.QUICK if quick else end_to_end.FULL, []
    shown = Table(("problem", "t", "published", "error", "ours", "error", "ratio", "ours as accurate"), say)
    for task in tasks.values():
        row = end_to_end.measure(task)
        rows.append(row)
        shown.row(
            *(row["problem"], row["t_end"], _time(row["published"]["seconds"]), row["published"]["error"]),
            *(_time(row["ours"]["seconds"]), row["ours"]["error"]),
            ("> " if row["lower_bound"] else "") + _times(row["ratio"]),
            "yes" if row["as_accurate"] else "no",
        )
    return {"rows": rows}


def _scaling(quick: bool, rates, say) -> dict:
    found = {}
    for kind in ("strong", "weak"):
        found[kind] = scaling.measure(kind, scaling.QUICK if quick else scaling.FULL)
        say(f"{kind} scaling of a velocity")
        shown = Table(("processes", "devices each", "cores", "n", "time", "speed-up", "efficiency"), say)
        for line in found[kind]:
            shown.row(
                *(line["processes"], line["devices"], line["cores"], line["n"], _time(line["seconds"])),
                *(_times(line["speedup"]), f"{line['efficiency']:.0%}"),
            )
    for what in ("p", "n"):
        grown = found[f"growth_{what}"] = growth.measure(what, quick, 3)
        say(f"a product against {what}: log-log slope {grown['slope']:.2f} over the last two decades")
        shown = Table(("p", "n", "chunk", "time", "of matmul", "MB", "MB predicted"), say)
        for line in grown["lines"]:
            shown.row(
                *(line["p"], line["n"], line["chunk"], _time(line["seconds"])),
                f"{line['flops_rate'] / rates.flops['float32']:.0%}",
                *(f"{line['bytes'] / 1e6:.1f}", f"{line['predicted_bytes'] / 1e6:.1f}"),
            )
    return found


def _laplacian(quick: bool, rates, say) -> dict:
    dimensions, width = (laplacian.QUICK, 16) if quick else (laplacian.DIMENSIONS, laplacian.WIDTH)
    rows = []
    shown = Table(("d", "p", "a point", "in values of u", "trace of a Hessian"), say)
    for d in dimensions:
        row = laplacian.measure(d, 3 if quick else 5, width)
        rows.append(row)
        a_point, in_values = _time(row["seconds_a_point"]["rhs"]), f"{row['in_values']:.1f}"
        shown.row(row["d"], row["p"], a_point, in_values, _times(row["ratio"]))
    return {"rows": rows}


def _gpu(quick: bool, trace: str | None, say) -> dict:
    found = gpu.measure(gpu.QUICK if quick else gpu.FULL, Path(trace or "trace"), 3 if quick else 7)
    for row in found["rows"]:
        say(f"matrix products in {row['precision']}: {_rate(row['matrix_rate'])}")
        say("  relative errors: " + ", ".join(f"{name} {error:.1e}" for name, error in row["errors"].items()))
        shown = Table(("width", "n", "p", "product", "of matmul", "sketch", "of matmul"), say)
        for line in row["products"]:
            shown.row(
                *(line["width"], line["n"], line["p"]),
                *(
                    entry
                    for name in ("product", "sketch")
                    for entry in (_time(line[name]["seconds"]), f"{line[name]['share_of_matrix_rate']:.0%}")
                ),
            )
        whole = row["evaluation"]
        say(f"  an evaluation at d = {whole['d']}, p = {whole['p']}, n = {whole['n']}: "
            + ", ".join(f"{name} {_time(seconds)}" for name, seconds in whole["seconds"].items())
            + f"; {whole['iterations']} iterations of {_time(whole['seconds_an_iteration'])}")  # fmt: skip
    say(f"trace: {found['trace']}")
    return found


SECTIONS: dict[str, Callable] = {
    "products": _products,
    "velocity": _velocity,
    "precision": _precision,
    "fit": _fit,
    "end_to_end": _end_to_end,
    "scaling": _scaling,
    "laplacian": _laplacian,
    "gpu": _gpu,
}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "not reached"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _rate(flops: float) -> str:
    return f"{flops / 1e9:.3g} GFlop/s"
