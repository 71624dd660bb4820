"""Whether a larger network with more points is more accurate, and what it costs: errors at a fixed time against p.

Every size of a network is a case, with five points a parameter and the same rules for all of them: the fit of the
initial condition goes on as long as it gains, mu is as small as rounding allows for a field u and 1e-10 for a field
log u, the solver is chosen by counted work, and the tolerance of the steps is far below the errors. So what is left of
the error is what the tangent space of the network leaves. A run ends after LIMIT core seconds, without what compiles.
"""

import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from nivp_dist.errors import InputError
from nivp_dist.formatting import MISSING, number, scientific
from nivp_dist.studies.study import Case, Records, Study, Table

SEED = 0
LIMIT = 900.0  # core seconds of a run
POINTS_PER_PARAMETER, LEAST_POINTS = 5, 2000  # of the fit, as ``settings.automatic`` has them for steps
SETTINGS = {
    "seed": str(SEED),
    "devices": "1",
    "sampling.points": "auto",
    "solver.method": "auto",
    "fit.iterations": "60",
    "fit.stop_at": "1e-8",
    "fit.line_search": "true",
    "fit.on_miss": "continue",
    "restart.enabled": "false",
    "output.times": "[]",
    "output.spectrum_every": "1000000",  # at the first step and at the last one
    "output.evaluation_points": "20000",
}


class Problem(NamedTuple):
    """A problem of the study.

    Attributes:
        configuration: a shipped one. t: of the error. wanted: the power of p that the error should fall with at least.
        widths: of its network. settings: that differ from the shipped ones.
    """

    configuration: str
    t: float
    wanted: float
    widths: tuple[int, ...]
    settings: dict[str, str]


FIELD = {"solver.mu": "1e-13", "integrator.rtol": "1e-6"}
DENSITY = {"solver.mu": "1e-10", "integrator.rtol": "1e-5"}
# The shipped configuration follows from its accuracy, and would change with that.
KINETIC = DENSITY | {
    "network.depth": "2",
    "network.activation": "tanh",
    "sampling.method": "solution",
    "sampling.inflation": "1.2",
    "integrator.method": "cash_karp",
    "integrator.initial_step": "1e-3",
}
PROBLEMS = {
    "advection": Problem("advection_2d", 0.1, 1.0, (4, 6, 8, 12, 16, 24, 32, 64), FIELD),
    "wave2d": Problem("wave_2d", 0.25, 1.0, (8, 12, 16, 24, 32, 64), FIELD | {"sampling.uniform_fraction": "auto"}),
    "wave3d": Problem("wave_3d", 0.1, 1.0, (12, 16, 24, 32, 64), DENSITY),
    "vlasov": Problem("vlasov_6d", 0.5, 0.5, (16, 24, 32, 48, 64, 96, 160), KINETIC),
    "wells": Problem("double_well_10d", 0.1, 0.5, (16, 24, 32, 48, 64, 128), DENSITY),
}
QUICK = {"advection": PROBLEMS["advection"]._replace(widths=(4, 6), t=0.02)}


def cases(quick: bool) -> list[Case]:
    return [
        Case(f"{name}-{width}", partial(measure, problem=problem, width=width))
        for name, problem in (QUICK if quick else PROBLEMS).items()
        for width in problem.widths
    ]


def measure(folder: Path, problem: Problem, width: int) -> dict:
    """The record of one size of a network. folder: is not used."""
    from nivp_dist.network.network import network_of
    from nivp_dist.problems import registry
    from nivp_dist.run.simulation import Simulation
    from nivp_dist.settings.files import read_config
    from nivp_dist.studies.in_memory import evolve

    settings = SETTINGS | problem.settings | {"network.width": str(width), "integrator.t_end": str(problem.t)}
    config = read_config(problem.configuration, settings)
    equation = registry.load(config.problem)
    points = max(LEAST_POINTS, POINTS_PER_PARAMETER * network_of(config, equation).size)
    config = read_config(problem.configuration, settings | {"fit.points": str(points)})
    run = Simulation(config, equation)
    course = evolve(run, SEED, LIMIT)
    seconds = [line["seconds"] / line["evaluations"] for line in course.lines if line["seconds"]]
    velocities = sum(line["evaluations"] for line in course.lines)
    iterations = sum(line["cg_iterations"] for line in course.lines)
    return {
        "t": problem.t,
        "p": run.network.size,
        "n": run.config.sampling.points,
        "method": run.galerkin.method,
        "fit": course.fit,
        "error": course.error,
        "residual": course.last("residual_fresh"),
        "steps": len(course.lines),
        "seconds_velocity": statistics.median(seconds) if seconds else None,
        "iterations": iterations / velocities if velocities else None,
        "effective_dimension": course.lines[0].get("effective_dimension") if course.lines else None,
        "seconds": course.seconds,
        "failure": course.failure,
    }


# Shown ------------------------------------------------------------------------------------------------


def of_problem(records: Records, name: str) -> list[dict]:
    """The records of a problem, in the order of p."""
    found = [record for case, record in records.items() if case.rsplit("-", 1)[0] == name]
    return sorted(found, key=lambda record: record["p"])


def tables(records: Records) -> list[Table]:
    return [_table(name, found) for name in PROBLEMS if (found := of_problem(records, name))]


def _table(name: str, found: list[dict]) -> Table:
    head = ["p", "n", "error at t = 0", "error", "residual", "steps", "velocity, s", "solver", "iterations", "d_eff"]
    rows = [head, *(_row(record) for record in found)]
    width = max(len(row) for row in rows)
    return Table(f"{name}, t = {found[0]['t']:g}", [row + [""] * (width - len(row)) for row in rows])


def _row(record: dict) -> list[str]:
    rounded = lambda key: MISSING if record[key] is None else f"{record[key]:.0f}"  # noqa: E731
    short = lambda key: MISSING if record[key] is None else scientific(record[key])  # noqa: E731
    return [
        *(f"{record[key]:,}" for key in ("p", "n")),
        *(short(key) for key in ("fit", "error", "residual")),
        number(record["steps"]),
        short("seconds_velocity"),
        record["method"],
        *(rounded(key) for key in ("iterations", "effective_dimension")),
        *([record["failure"]] if record["failure"] else []),
    ]


def slope(found: list[dict]) -> float | None:
    """a of error ~ p^-a by least squares over all sizes that reached the time; None with fewer than two."""
    from nivp_dist.bench import growth

    known = [(record["p"], record["error"]) for record in found if record["error"]]
    return -growth.slope(known, decades=10.0) if len({p for p, _ in known}) > 1 else None


def answer(records: Records) -> list[str]:
    return [line for name in PROBLEMS if (found := of_problem(records, name)) for line in _answer(name, found)]


def _answer(name: str, found: list[dict]) -> list[str]:
    power, wanted = slope(found), PROBLEMS[name].wanted
    if power is None:
        return [f"{name}: open, fewer than two sizes reached t = {found[0]['t']:g}."]
    known = [record for record in found if record["error"]]
    best = min(known, key=lambda record: record["error"])
    verdict = "at least" if power >= wanted else "less than"
    course = f"falls as p^-{power:.2f}" if power >= 0 else f"grows as p^{-power:.2f}"
    most = max((record["iterations"] or 0.0) for record in known)
    return [
        f"{name}: from p = {known[0]['p']:,} to {known[-1]['p']:,} the error {course}, {verdict} the "
        f"fall as p^-{wanted:g} that is wanted; the least is {scientific(best['error'])} with p = {best['p']:,}, from "
        f"{scientific(best['fit'])} at t = 0. A velocity takes at most {most:.0f} iterations of CG."
    ]


def draw(records: Records, figure: Figure) -> None:
    left, right = figure.subplots(1, 2)
    for i, name in enumerate(PROBLEMS):
        found = [record for record in of_problem(records, name) if record["error"]]
        if not found:
            continue
        sizes = [record["p"] for record in found]
        left.loglog(sizes, [record["error"] for record in found], "o-", color=f"C{i}", label=name, markersize=4)
        left.loglog(sizes, [record["fit"] for record in found], ":", color=f"C{i}", linewidth=1)
        timed = [(record["p"], record["seconds_velocity"]) for record in found if record["seconds_velocity"]]
        if timed:
            right.loglog(*zip(*timed), "o-", color=f"C{i}", label=name, markersize=4)
    left.set(title="error (dotted: at t = 0)", xlabel="parameters p", ylabel="relative L2 error")
    right.set(title="a velocity", xlabel="parameters p", ylabel="core seconds")
    left.legend(fontsize=9, frameon=False)


STUDY = Study(
    "size",
    "Do a larger network and more points buy accuracy, and what do they cost?",
    cases,
    tables,
    answer,
    draw,
    timed=True,
)


def study_of(problems: Sequence[str]) -> Study:
    """The study for some of its problems; none: for all. Raises InputError for a name that is not one of them."""
    if unknown := [name for name in problems if name not in PROBLEMS]:
        raise InputError(f"bench size: there is no problem '{unknown[0]}'; there are {', '.join(PROBLEMS)}")
    wanted = lambda case: not problems or case.name.rsplit("-", 1)[0] in problems  # noqa: E731
    return STUDY._replace(cases=lambda quick: [case for case in cases(quick) if wanted(case)])
