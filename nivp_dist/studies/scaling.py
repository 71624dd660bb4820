"""How time and memory of a velocity and of a step grow with the number of parameters, for every solver.

The Fokker-Planck trap in 5 dimensions as it is shipped, with networks of other widths, after a few rounds of its
initial fit; the points are POINTS for all of them. For the slopes CG takes ITERATIONS iterations, with an approximation
of rank RANK, whatever residual that leaves. How many it needs is another measurement, with the same rank and the
tolerance of the shipped configuration, at the states of three seeds.
"""

from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from nivp_dist.formatting import MISSING, number, scientific
from nivp_dist.studies.study import Case, Records, Study, Table

CONFIGURATION = "fokker_planck_trap_5d"
# p = 110, 302, 1,030, 2,966, 10,142, 30,566, 100,430
WIDTHS, QUICK_WIDTHS = (4, 10, 24, 46, 92, 166, 308), (8, 16)
POINTS, QUICK_POINTS = 1000, 200
RANK, ITERATIONS, ENOUGH = 64, 25, 1000  # ENOUGH: iterations at most where they are counted
SEEDS, FIT_ROUNDS = (0, 1, 2), 6
METHODS = ("dual", "pcg", "dual_pcg", "primal")
ITERATIVE = ("pcg", "dual_pcg")
LARGEST_DENSE = 12_000  # p of "primal": 1e4 take a minute for a step, 3e4 would take half an hour, and 7 GB
STEP = 1e-6  # of time: it only has to be small, because the step is not kept
LINEAR = 1.15  # a slope up to here is called linear: products whose matrices leave a cache have a little over one


def cases(quick: bool) -> list[Case]:
    widths, points = (QUICK_WIDTHS, QUICK_POINTS) if quick else (WIDTHS, POINTS)
    return [Case(f"width-{width}", partial(measure, width=width, points=points)) for width in widths]


def measure(folder: Path, width: int, points: int) -> dict:
    """The record of one network: p, n, and what every solver takes."""
    from nivp_dist.studies import systems

    settings = {"network.width": width, "sampling.points": points, "fit.points": points, "fit.iterations": FIT_ROUNDS}
    settings |= {"fit.on_miss": "continue", "fit.target": 1e-6, "sampling.adapt_points": "false"}
    run = systems.simulation(CONFIGURATION, {key: str(value) for key, value in settings.items()})
    states = [systems.begun(run, seed) for seed in SEEDS]
    found = [systems.system_of(run, state, points) for state in states]
    methods = [method for method in METHODS if method != "primal" or run.network.size <= LARGEST_DENSE]
    _step_of(run, states[0], systems.Solver(run, {"method": methods[0]}, found[0]))()  # compiles what all steps share
    solvers = {method: _solver(run, states[0], found, method) for method in methods}
    return {"p": run.network.size, "n": points, "solvers": solvers}


def _solver(run, state, found, method: str) -> dict:
    """What one solver takes at the first of the systems found, and the iterations that it needs at all of them."""
    from nivp_dist.studies import systems

    fixed: dict = {"method": method}
    if method in ITERATIVE:
        rank = min(RANK, run.network.size)
        fixed |= {"rank": rank, "rtol": 1e-30, "max_iterations": ITERATIONS}
    system, solver = found[0], systems.Solver(run, fixed, found[0])
    shared = solver.prepare(system)
    record = {
        "iterations": solver.velocity(system, shared).quality.iterations,
        "seconds_velocity": systems.processor_seconds(lambda: solver.velocity(system, shared)),
        "seconds_prepare": systems.processor_seconds(lambda: solver.prepare(system)),
        "seconds_step": systems.processor_seconds(_step_of(run, state, solver)),
        "bytes": solver.memory,
    }
    if method in ITERATIVE:
        needed = fixed | {"rtol": "auto", "max_iterations": ENOUGH}
        counted = systems.Solver(run, needed, system, rate_rtol=run.config.integrator.rtol)
        results = [counted.velocity(system, counted.prepare(system)).quality for system in found]
        record["needed"] = [result.iterations if result.code == 0 else None for result in results]
    return record


def _step_of(run, state, solver):
    """A call that does what an accepted step of a run does: points, preparation, six velocities, the norms of its
    error, and the check of its first velocity on other points."""
    import jax

    from nivp_dist.integration.attempts import combine
    from nivp_dist.integration.tableaus import TABLEAUS, attempt
    from nivp_dist.settings.automatic import explicit_pair
    from nivp_dist.studies import systems

    tableau, together = TABLEAUS[explicit_pair(run.config.integrator)], jax.jit(combine)
    points = run.config.sampling.points

    def step():
        system, rates = systems.system_of(run, state, points), []
        shared = solver.prepare(system)

        def velocity(theta, t):
            result = solver.velocity(system._replace(theta=theta, t=t), shared)
            rates.append(result.rate)
            return result.v

        taken = attempt(tableau, velocity, together, system.theta, system.t, STEP, None)
        increments = (together(None, STEP, weights, rates) for weights in (tableau.b, tableau.b_error))
        norms = run.galerkin.step_norms(state.theta, state.t, taken.theta, taken.error, *increments, system.points)
        fresh = run.stepper.points_of_check(state)
        return norms, run.galerkin.check_residual(state.theta, state.t, taken.velocities[0], fresh)

    return step


# Shown ------------------------------------------------------------------------------------------------


def pairs(records: Records, method: str, key: str) -> list[tuple[float, float]]:
    """(p, value) of a method, in the order of p."""
    solvers = ((record["p"], record["solvers"].get(method)) for record in records.values())
    return sorted((p, solver[key]) for p, solver in solvers if solver)


def last_decade(found: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The pairs of the last decade of p; none where that holds one size only."""
    last = [pair for pair in found if pair[0] >= found[-1][0] / 10]
    return last if len(last) > 1 else []


def slope(found: list[tuple[float, float]]) -> float | None:
    """The slope of log(value) against log(p) over the last decade of p; None where that holds one size only."""
    from nivp_dist.bench import growth

    return growth.slope(last_decade(found), 1.0) if last_decade(found) else None


def tables(records: Records) -> list[Table]:
    n = next(iter(records.values()))["n"]
    head = ["p", "solver", "velocity, s", "step, s", "memory, MB", "iterations to tolerance"]
    rows = [
        [f"{record['p']:,}", method, *_numbers(solver)]
        for record in records.values()
        for method, solver in sorted(record["solvers"].items())
    ]
    title = f"One core, n = {n:,}; conjugate gradients with {ITERATIONS} iterations and rank {RANK}"
    return [Table(title, [head, *rows]), slopes(records)]


def _numbers(solver: dict) -> list[str]:
    needed = solver.get("needed")
    counts = MISSING if needed is None else ", ".join(f"over {ENOUGH}" if n is None else str(n) for n in needed)
    seconds = scientific(solver["seconds_velocity"]), scientific(solver["seconds_step"])
    return [*seconds, number(float(solver["bytes"]) / 1e6), counts]


def slopes(records: Records) -> Table:
    """The slopes of every solver."""
    rows = [["solver", "p from", "to", "velocity", "step", "memory"]]
    for method in sorted(METHODS):
        if last := last_decade(pairs(records, method, "seconds_velocity")):
            values = [slope(pairs(records, method, key)) for key in ("seconds_velocity", "seconds_step", "bytes")]
            rows.append([method, f"{last[0][0]:,}", f"{last[-1][0]:,}", *(f"{value:.2f}" for value in values)])
    return Table("Slope of log(value) against log(p) over the last decade of p (1: linear, 3: that of p^3)", rows)


def answer(records: Records) -> list[str]:
    return [*(_growth(records, method) for method in (*ITERATIVE, "dual")), _dense(records)]


def _growth(records: Records, method: str) -> str:
    """How a velocity and its memory grow, against O(p)."""
    time, memory = (slope(pairs(records, method, key)) for key in ("seconds_velocity", "bytes"))
    if time is None or memory is None:
        return f"{method}: open, there is one size in the last decade."
    verdict = "not faster than p" if max(time, memory) <= LINEAR else "faster than p"
    of = f" of {ITERATIONS} iterations" if method in ITERATIVE else ""
    last = last_decade(pairs(records, method, "bytes"))
    span = f"from p = {last[0][0]:,} to {last[-1][0]:,}"
    return f"{method}: {span} a velocity{of} takes time as p^{time:.2f} and memory as p^{memory:.2f}, {verdict}."


def _dense(records: Records) -> str:
    """How a velocity by the primal matrix grows, against its operations, and where the others are faster."""
    found = pairs(records, "primal", "seconds_velocity")
    if (measured := slope(found)) is None:
        return "primal: open, there is one size in the last decade."
    n = next(iter(records.values()))["n"]
    counted = slope([(p, n * p**2 / 2 + p**3 / 3) for p, _ in found])
    p, seconds = found[-1]
    faster = [
        f"{method} {seconds / times[p]:.3g}"
        for method in (*ITERATIVE, "dual")
        if (times := dict(pairs(records, method, "seconds_velocity"))).get(p, seconds) < seconds
    ]
    others = f"; at p = {p:,} it takes so many times longer than the others: {', '.join(faster)}" if faster else ""
    return (
        f"primal: from p = {last_decade(found)[0][0]:,} to {p:,} a velocity takes time as p^{measured:.2f}, where its "
        f"operations n p^2 / 2 + p^3 / 3 grow as p^{counted:.2f}{others}."
    )


def draw(records: Records, figure: Figure) -> None:
    panels = {
        "seconds_velocity": (f"a velocity ({ITERATIONS} iterations of CG)", "seconds", 3),
        "seconds_step": ("a step of six velocities", "seconds", 3),
        "bytes": ("memory of a velocity", "bytes", 2),
    }
    axes = figure.subplots(1, 3)
    for axis, (key, (title, unit, steep)) in zip(axes, panels.items()):
        for method in METHODS:
            if found := pairs(records, method, key):
                axis.loglog(*zip(*found), marker="o", markersize=4, label=method)
        sizes = [float(record["p"]) for record in records.values()]
        lowest, highest = axis.get_ylim()
        for power, line in ((1, ":"), (steep, "--")):
            guide = [lowest * (p / min(sizes)) ** power for p in sorted(sizes)]
            axis.loglog(sorted(sizes), guide, line, color="#999999", zorder=0, label=f"p^{power}")
        axis.set(title=title, xlabel="parameters p", ylabel=unit, ylim=(lowest, highest))
    axes[0].legend(fontsize=9, frameon=False)
    for axis in axes[1:]:  # the solvers have the same colours in all panels
        guides = [line for line in axis.lines if str(line.get_label()).startswith("p^")]
        axis.legend(handles=guides, fontsize=9, frameon=False, loc="upper left")


STUDY = Study(
    "scaling",
    "How do time and memory of a velocity and of a step grow with the number of parameters?",
    cases,
    tables,
    answer,
    draw,
    timed=True,
)
