"""All linear solvers on the same systems: iterations, seconds, and the error of the rate J v.

States are those of three shipped configurations with small networks, after a few rounds of the initial fit and two
steps, with three seeds each. The points of a system are half as many, or twice as many, as parameters; of several
outputs at a point each counts.
"""

import statistics
import textwrap
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from nivp_dist.formatting import MISSING
from nivp_dist.studies.study import Case, Records, Study, Table, median_and_range

# Configuration -> widths of about 500 and 2,000 parameters.
WIDTHS = {"advection_2d": (11, 26), "fokker_planck_trap_5d": (15, 37), "wave_2d": (12, 28)}
QUICK_WIDTHS = {"advection_2d": (4,)}
SEEDS, FIT_ROUNDS, STEPS = (0, 1, 2), 15, 2
SHARES = {"n < p": 0.5, "n > p": 2.0}  # samples over parameters
RATE_RTOL = 1e-4  # the relative error of the rate J v that is asked for
MOST_ITERATIONS = 500
STAGES = 6  # velocities of a step, which share a preparation
CLEAR = 1.2  # a solver wins where every other one takes so many times longer, with each seed


class Candidate(NamedTuple):
    """A solver: name of its row, method, precision of its products, rank of its approximation (0: none)."""

    method: str
    precision: str
    rank: int = 0

    @property
    def name(self) -> str:
        rank = f", rank {self.rank}" if self.rank else ""
        return f"{self.method}{rank}, {self.precision}"

    def settings(self) -> dict:
        found = {"method": self.method, "precision": self.precision}
        return found | ({"rank": self.rank, "max_iterations": MOST_ITERATIONS} if self.rank else {})


DIRECT = [Candidate(method, precision) for method in ("primal", "dual") for precision in ("float64", "float32")]
ITERATIVE = [
    Candidate(method, precision, rank)
    for method in ("pcg", "dual_pcg")
    for rank, precision in ((64, "float64"), (256, "float64"), (256, "float32"))
]
CANDIDATES = DIRECT + ITERATIVE


def cases(quick: bool) -> list[Case]:
    return [
        Case(f"{configuration}-{width}", partial(measure, configuration=configuration, width=width))
        for configuration, widths in (QUICK_WIDTHS if quick else WIDTHS).items()
        for width in widths
    ]


def measure(folder: Path, configuration: str, width: int) -> dict:
    """The record of a configuration and a width: p, and a system for each of SHARES with what every solver does."""
    from nivp_dist.bench.velocity import jacobian_and_rate
    from nivp_dist.studies import systems

    settings = {"network.width": str(width), "fit.iterations": str(FIT_ROUNDS), "fit.points": "2000"}
    settings |= {"sampling.points": "2000", "fit.on_miss": "continue", "restart.max_age": "1e9"}
    run = systems.simulation(configuration, settings)
    states = [systems.begun(run, seed, STEPS) for seed in SEEDS]
    dense, found = jacobian_and_rate(run), {}
    for share, factor in SHARES.items():
        n = round(factor * run.network.size / run.network.outputs)
        at = [systems.system_of(run, state, n) for state in states]
        found[share] = {"n": n, "solvers": _compare(run, dense, at)}
    return {"configuration": configuration, "p": run.network.size, "outputs": run.network.outputs, "systems": found}


def _compare(run, dense, at: list) -> dict:
    """candidate -> its iterations, seconds and errors, a list each with an entry for every system of `at`."""
    from nivp_dist.studies import systems

    exact = systems.Solver(run, CANDIDATES[0].settings(), at[0])
    references = [systems.DenseRate(run, dense, system, exact.prepare(system)) for system in at]
    found = {}
    for candidate in CANDIDATES:
        solver = systems.Solver(run, candidate.settings(), at[0], rate_rtol=RATE_RTOL)
        of = [_solved(solver, system, reference) for system, reference in zip(at, references)]
        found[candidate.name] = {key: [each[key] for each in of] for key in of[0]}
    return found


def _solved(solver, system, reference) -> dict:
    from nivp_dist.studies import systems

    shared = solver.prepare(system)
    result = solver.velocity(system, shared)
    prepare = systems.processor_seconds(lambda: solver.prepare(system), rounds=2)
    velocity = systems.processor_seconds(lambda: solver.velocity(system, shared), rounds=2)
    return {
        "iterations": result.quality.iterations,
        "converged": result.quality.code == 0,
        "seconds": velocity + prepare / STAGES,
        "error": reference.error(result.v),
    }


# Shown ------------------------------------------------------------------------------------------------


def accurate(solver: dict) -> bool:
    """Whether the rate has the accuracy asked for with every seed. No error is known of a velocity that is NaN."""
    return all(error is not None and error <= RATE_RTOL for error in solver["error"])


def winners(solvers: dict[str, dict]) -> list[str]:
    """The fastest of the accurate solvers, and those that are not clearly slower than it with every seed."""
    fit = {name: solver["seconds"] for name, solver in solvers.items() if accurate(solver)}
    if not fit:
        return []
    best = min(fit, key=lambda name: statistics.median(fit[name]))
    return [best] + [
        name
        for name, seconds in fit.items()
        if name != best and any(other < CLEAR * own for own, other in zip(fit[best], seconds))
    ]


def tables(records: Records) -> list[Table]:
    return [_conclusions(records), *(_table(*each) for each in _systems(records))]


def _systems(records: Records) -> list[tuple[dict, str, dict]]:
    """Every system as (record, share, system)."""
    return [(record, share, system) for record in records.values() for share, system in record["systems"].items()]


def _table(record: dict, share: str, system: dict) -> Table:
    rows = [["solver", "iterations", "seconds of a velocity", "error of J v"]]
    for name, solver in system["solvers"].items():
        counts = [f"{n}" if met else f"{n} (not met)" for n, met in zip(solver["iterations"], solver["converged"])]
        iterations = ", ".join(counts) if any(solver["iterations"]) else MISSING
        rows.append([name, iterations, median_and_range(solver["seconds"]), median_and_range(solver["error"])])
    return Table(f"{record['configuration']}, p = {record['p']:,}, n = {system['n']:,}: {share}", rows)


def _conclusions(records: Records) -> Table:
    rows = [["configuration", "outputs", "p", "n", "samples", "fastest method", "as", "seconds of a velocity"]]
    for record, share, system in _systems(records):
        solvers = system["solvers"]
        best = winners(solvers)
        seconds = median_and_range(solvers[best[0]]["seconds"]) if best else MISSING
        place = [record["configuration"], str(record["outputs"]), f"{record['p']:,}", f"{system['n']:,}", share]
        rows.append([*place, _winning_method(solvers), " or ".join(best) or MISSING, seconds])
    title = (
        f"The fastest with an error of J v of at most {RATE_RTOL:g}, and what is not slower by {CLEAR} with each seed"
    )
    return Table(title, rows)


def answer(records: Records) -> list[str]:
    said = []
    for share in SHARES:
        verdicts = Counter(_winning_method(system["solvers"]) for _, each, system in _systems(records) if each == share)
        counted = ", ".join(f"{method} in {count}" for method, count in verdicts.most_common())
        said.append(f"With {share} the fastest accurate method is, of {verdicts.total()} systems: {counted}.")
    missed = Counter(
        name for *_, system in _systems(records) for name, solver in system["solvers"].items() if not accurate(solver)
    )
    whole = len(_systems(records))
    failed = ", ".join(f"{name} in {count}" for name, count in missed.most_common()) or "none"
    return [*said, f"An error of J v of at most {RATE_RTOL:g} was missed, of {whole} systems, by: {failed}."]


def _winning_method(solvers: dict[str, dict]) -> str:
    """The method of the winner, whatever its rank and precision; "open" where several methods are as fast."""
    methods = {name.split(",")[0] for name in winners(solvers)}
    return methods.pop() if len(methods) == 1 else "open" if methods else "none"


def draw(records: Records, figure: Figure) -> None:
    """Seconds of the fastest accurate solver of each method at every system, a mark for each seed."""
    found, axis = _systems(records), figure.subplots()
    markers = {"primal": "o", "dual": "s", "pcg": "D", "dual_pcg": "^"}
    for number, (method, marker) in enumerate(markers.items()):
        places, seconds = [], []
        for place, (_, _, system) in enumerate(found):
            best = _fastest(system["solvers"], method)
            places += [place + 0.15 * (number - 1.5)] * len(best)
            seconds += best
        axis.plot(places, seconds, marker, markersize=5, alpha=0.8, label=method)
    problem = lambda record: textwrap.fill(record["configuration"].replace("_", " "), 14)  # noqa: E731
    names = [f"{problem(record)}\np = {record['p']:,}\n{share}" for record, share, _ in found]
    axis.set_xticks(range(len(found)), names, fontsize=6)
    axis.set(yscale="log", ylabel="a velocity, seconds")
    axis.grid(axis="y", alpha=0.3)
    title = f"the fastest of each method with an error of J v of at most {RATE_RTOL:g}"
    figure.legend(loc="outside upper center", ncols=4, frameon=False, title=title)


def _fastest(solvers: dict, method: str) -> list[float]:
    """Seconds of the fastest accurate solver of that method; none where none is accurate."""
    of = [each["seconds"] for name, each in solvers.items() if name.split(",")[0] == method and accurate(each)]
    return min(of, key=statistics.median, default=[])


STUDY = Study(
    "solvers",
    "Which linear solver is the fastest at which number of parameters and points, and how accurate is it?",
    cases,
    tables,
    answer,
    draw,
    timed=True,
)
