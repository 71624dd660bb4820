"""The sections of `nivp bench speed`: each measures its lines, writes them as a table, and returns them for JSON."""

import itertools
import statistics
from collections.abc import Callable
from typing import NamedTuple

from nivp_dist.bench import (
    cases,
    cost_model,
    end_to_end,
    fit,
    growth,
    laplacian,
    precision,
    products,
    scaling,
    step_model,
    velocity,
)
from nivp_dist.bench.roofline import Roofline
from nivp_dist.bench.text import Table, ratio_text, time_text
from nivp_dist.formatting import number


class Options(NamedTuple):
    """quick: small sizes. rates: of this machine. write: takes lines of text."""

    quick: bool
    rates: Roofline
    write: Callable[[str], None]


Section = Callable[[Options], dict]


def sections() -> dict[str, Section]:
    """name -> section, in the order in which they are measured."""
    return {
        "products": _products,
        "velocity": _velocity,
        "precision": _precision,
        "fit": _fit,
        "end_to_end": _end_to_end,
        "scaling": _scaling,
        "cost_model": _cost_model,
        "laplacian": _laplacian,
    }


# Products ---------------------------------------------------------------------------------------


def _products(options: Options) -> dict:
    options.write("ratios: time of the other way over ours (the ways are explained in nivp_dist/bench/products.py)")
    grid = products.cases(options.quick)
    product_grid, sketch_grid = ([case for case in grid if bool(case.rank) == sketch] for sketch in (False, True))
    rows = _product_table(options, "product M v", product_grid, products.IN_A_LOOP)
    title = "sketch: ours of K in float64, the others M Omega"
    rows += _product_table(options, title, sketch_grid, products.EXPLICIT_ANEW, products.COLUMNS)
    found = {"rows": rows, "summary": summary(rows)}
    for name, values in found["summary"].items():
        options.write(f"  {name}: " + ", ".join(f"{key} {number(value)}" for key, value in values.items()))
    return found


def _product_table(options: Options, title: str, grid: list[products.Case], *further: str) -> list[dict]:
    """Measure the cases of a grid. further: ways that only some of the cases have."""
    options.write(title)
    facts, ways, rows = ("width", "n", "d", "p", "rank", "dtype"), (*products.OTHERS, *further), []
    table = Table((*facts, "ours", *ways, "best", "of matmul", "of roofline"), options.write)
    for case in grid:
        row = products.measure(case, options.rates, 3 if options.quick else 7)
        rows.append(row)
        table.row(
            *(row[name] for name in facts),
            time_text(row["seconds"][products.OURS]),
            *(ratio_text(row["ratio"].get(name)) for name in (*ways, row["best"])),
            f"{row['share_of_matmul_rate']:.0%}",
            f"{row['share_of_roofline']:.0%}",
        )
    return rows


def summary(rows: list[dict]) -> dict:
    """Medians of the ratios for products and sketches in each precision.

    "least" is the smallest ratio of the best other way to ours, "slower" the number of cases where ours takes at least
    a tenth longer than the best other way.
    """
    found = {}
    for kind, dtype in sorted({("sketch" if row["rank"] else "product", row["dtype"]) for row in rows}):
        some = [row for row in rows if bool(row["rank"]) == (kind == "sketch") and row["dtype"] == dtype]
        ratios = {name: [row["ratio"][name] for row in some if name in row["ratio"]] for name in products.OTHERS}
        best = [row["ratio"][row["best"]] for row in some]
        found[f"{kind} {dtype}"] = {
            f"median {name}": statistics.median(values) for name, values in ratios.items() if values
        } | {"least": min(best), "slower": sum(ratio < 1 / 1.1 for ratio in best), "cases": len(some)}
    return found


# Against the published procedure ----------------------------------------------------------------


def _velocity(options: Options) -> dict:
    size, rows = velocity.QUICK if options.quick else velocity.FULL, []
    columns = ("problem", "p", "n", "published", "error", "ours", "error", "method", "CG", "ratio", "pcg", "ratio")
    table = Table(columns, options.write)
    for name in cases.RIGHT_HAND_SIDES:
        row = velocity.measure(name, size, 3)
        rows.append(row)
        seconds, error, auto = row["seconds"], row["error"], row["ours"]["auto"]
        table.row(
            *(row["problem"], row["p"], row["n"], time_text(seconds["published"]), error["published"]),
            *(time_text(seconds["auto"]), error["auto"], auto["method"]),
            *("/".join(map(str, auto["iterations"])), ratio_text(row["ratio"]["auto"])),
            *(time_text(seconds["pcg"]), ratio_text(row["ratio"]["pcg"])),
        )
    return {"rows": rows}


def _precision(options: Options) -> dict:
    size, rows = velocity.QUICK if options.quick else precision.FULL, []
    columns = ("problem", "p", "n", "mu", "precision", "error of M v", "CG", "residual", "error", "time", "ratio")
    table = Table(columns, options.write)
    for name in precision.PROBLEMS:
        for row in precision.measure(name, size, 3):
            rows.append(row)
            table.row(
                *(row[key] for key in ("problem", "p", "n", "mu", "precision", "product_error")),
                *(str(row["iterations"]), row["cg_residual"], row["error"]),
                *(time_text(row["seconds"]), ratio_text(row["ratio"])),
            )
    return {"rows": rows}


def _fit(options: Options) -> dict:
    size, rows = fit.QUICK if options.quick else fit.FULL, []
    table = Table(("problem", "p", "relative error", "Gauss-Newton", "Adam", "ratio"), options.write)
    for name in fit.PROBLEMS:
        row = fit.measure(name, size)
        rows.append(row)
        for line in row["targets"]:
            times, ratio = (time_text(line["ours"]), time_text(line["adam"])), (line["ratio"], line["lower_bound"])
            table.row(row["problem"], row["p"], line["error"], *times, ratio_text(*ratio))
    return {"rows": rows}


def _end_to_end(options: Options) -> dict:
    tasks, rows = end_to_end.QUICK if options.quick else end_to_end.FULL, []
    table = Table(("problem", "t", "published", "error", "ours", "error", "ratio", "ours as accurate"), options.write)
    for task in tasks.values():
        row = end_to_end.measure(task)
        rows.append(row)
        table.row(
            *(row["problem"], row["t_end"], time_text(row["published"]["seconds"]), row["published"]["error"]),
            *(time_text(row["ours"]["seconds"]), row["ours"]["error"]),
            ratio_text(row["ratio"], row["lower_bound"]),
            "yes" if row["as_accurate"] else "no",
        )
    return {"rows": rows}


# Scaling ----------------------------------------------------------------------------------------


def _scaling(options: Options) -> dict:
    found = {}
    for what, kind in itertools.product(("velocity", "step"), ("strong", "weak")):
        size = (scaling.QUICK if options.quick else scaling.FULL)[what]
        found[f"{kind}_{what}"] = lines = scaling.measure(kind, what, size)
        options.write(f"{kind} scaling of a {what}; 0 devices: processes that are not connected")
        columns = ("processes", "devices each", "cores", "n", "time", "speed-up", "efficiency")
        table = Table(columns, options.write)
        for line in lines:
            facts = (line[name] for name in ("processes", "devices", "cores", "n"))
            table.row(*facts, time_text(line["seconds"]), ratio_text(line["speedup"]), f"{line['efficiency']:.0%}")
    return found | {f"growth_{what}": _growth(options, what) for what in ("p", "n")}


def _growth(options: Options, what: str) -> dict:
    found = growth.measure(what, options.quick, 3)
    options.write(f"a product against {what}: log-log slope {found['slope']:.2f} over the last two decades")
    table = Table(("p", "n", "chunk", "time", "of matmul", "MB", "MB predicted"), options.write)
    for line in found["lines"]:
        table.row(
            *(line["p"], line["n"], line["chunk"], time_text(line["seconds"])),
            f"{line['flops_rate'] / options.rates.flops['float32']:.0%}",
            *(f"{line['bytes'] / 1e6:.1f}", f"{line['predicted_bytes'] / 1e6:.1f}"),
        )
    return found


def _cost_model(options: Options) -> dict:
    options.write("a velocity on H200 GPUs, by the model of nivp_dist/bench/cost_model.py; nothing here is measured")
    for line in cost_model.table():
        options.write(line)
    options.write("a step, and its weak scaling")
    for line in step_model.table():
        options.write(line)
    return {"rows": cost_model.rows(), "steps": step_model.rows()}


# Single programs --------------------------------------------------------------------------------


def _laplacian(options: Options) -> dict:
    dimensions, width = (laplacian.QUICK, 16) if options.quick else (laplacian.DIMENSIONS, laplacian.WIDTH)
    rows = []
    table = Table(("d", "p", "a point", "in values of u", "trace of a Hessian"), options.write)
    for d in dimensions:
        row = laplacian.measure(d, 3 if options.quick else 5, width)
        rows.append(row)
        seconds, in_values = time_text(row["seconds_a_point"]["rhs"]), f"{row['in_values']:.1f}"
        table.row(row["d"], row["p"], seconds, in_values, ratio_text(row["ratio"]))
    return {"rows": rows}
