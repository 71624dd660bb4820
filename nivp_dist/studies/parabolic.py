"""Neural IVP and a physics-informed network (``bench.pinn``) on parabolic problems: error against time on one core.

Both have the same network, the PINN with time as a further input, and their errors are taken on the same points at the
end. Ours is a run for each accuracy; a training of the PINN gives its whole course. Seconds are those of the processor,
bound to one core, without compiling, which is stated beside them.
"""

import statistics
from functools import partial
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nivp_dist.formatting import MISSING, number
from nivp_dist.studies.comparison import MIDDLE, OURS, PINN, SEEDS, answer, least_until
from nivp_dist.studies.study import Case, Records, Study, Table, median_and_range

FINISHES = {"gauss_newton": "Adam, Gauss-Newton", "lbfgs": "Adam, L-BFGS"}
EVALUATION_POINTS = 20_000


class Task(NamedTuple):
    """A problem of the study.

    Attributes:
        configuration: a shipped one. settings: that differ, of both methods.
        accuracies: name -> settings of our run.
        training: settings of the PINN (``bench.pinn.Settings``), those of its best finish, with which it has all seeds.
        others: finish -> settings that differ, of trainings with one seed.
    """

    configuration: str
    settings: dict[str, str]
    accuracies: dict[str, dict[str, str]]
    training: dict
    others: dict[str, dict]


TASKS = {
    "heat": Task(
        "heat_periodic_2d",
        {},
        {MIDDLE: {"integrator.rtol": "1e-4", "fit.stop_at": "1e-5"}, "high": {}},
        {"finish": "gauss_newton", "adam_steps": 500, "steps": 120},
        {"lbfgs": {"steps": 400}},
    ),
    "Allen-Cahn": Task(
        "allen_cahn_1d",
        {},
        {
            MIDDLE: {"integrator.rtol": "1e-4", "fit.stop_at": "1e-4"},
            "high": {"integrator.rtol": "1e-5", "fit.stop_at": "1e-5"},
        },
        {"finish": "gauss_newton", "adam_steps": 2000, "causality": 10.0, "steps": 120},
        {"lbfgs": {"steps": 400}},
    ),
    "Fokker-Planck": Task(
        "linear_fokker_planck_8d",
        {"problem.parameters.dimension": "2", "network.width": "16", "sampling.points": "2000"},
        {MIDDLE: {"integrator.rtol": "1e-3"}, "high": {"integrator.rtol": "1e-4"}},
        {"finish": "gauss_newton", "adam_steps": 500, "steps": 200, "points": 2048},
        {"lbfgs": {"steps": 400}},
    ),
}
_TINY = {"network.width": "6", "network.depth": "1", "sampling.points": "400", "fit.points": "400"}
QUICK = {
    "heat": Task(
        "heat_periodic_2d",
        _TINY | {"integrator.t_end": "0.5", "network.frequencies": "1"},
        {MIDDLE: {"integrator.rtol": "1e-3", "fit.stop_at": "1e-3", "fit.iterations": "20"}},
        {"finish": "gauss_newton", "adam_steps": 50, "batch": 64, "steps": 30, "points": 512},
        {"lbfgs": {"steps": 50}},
    )
}


def cases(quick: bool) -> list[Case]:
    """Those of all seeds first, on which the answer rests."""
    main, others = [], []
    all_seeds = SEEDS[:1] if quick else SEEDS
    for name, task in (QUICK if quick else TASKS).items():
        for accuracy in task.accuracies:
            found, seeds = (main, all_seeds) if accuracy == MIDDLE else (others, SEEDS[:1])
            found.append(Case(f"{name}-ours-{accuracy}", partial(_ours, name, task, accuracy, seeds)))
        for finish, changes in ({task.training["finish"]: {}} | task.others).items():
            found, seeds = (others, SEEDS[:1]) if finish in task.others else (main, all_seeds)
            training, called = task.training | {"finish": finish} | changes, finish.replace("_", "-")
            found.append(Case(f"{name}-pinn-{called}", partial(_pinn, name, task, training, seeds)))
    return main + others


# Measured ---------------------------------------------------------------------------------------------


def _ours(name: str, task: Task, accuracy: str, seeds: tuple[int, ...], folder: Path) -> dict:
    """The record of our runs: for each seed the course [[seconds, error]], a single point."""
    import time

    from nivp_dist.studies import in_memory

    run = _simulation(task, task.accuracies[accuracy])
    run.scorer = _scorer(run, run.network)
    began, courses, failures = time.process_time(), {}, []
    _compile(run)
    compiling = time.process_time() - began
    for seed in seeds:
        course = in_memory.evolve(run, seed)
        courses[str(seed)] = [[course.seconds, course.error]] if course.error is not None else []
        failures += [course.failure] if course.failure else []
    facts = {"problem": name, "method": OURS, "kind": accuracy, "p": run.network.size, "failures": failures}
    return facts | {"compile_seconds": compiling, "courses": courses}


def _compile(run) -> None:
    """Build the programs of a run: a round of its fit, two steps, and the error."""
    state = run.fits.advance(run.begin())
    state = run.after_output(run.fits.finish_initial(state)[0])
    for _ in range(2):
        state = run.step(state, lambda: None).state
    run.score(state)


def _pinn(name: str, task: Task, settings: dict, seeds: tuple[int, ...], folder: Path) -> dict:
    """The record of trainings: for each seed the course [[seconds, error], ...], and the iterations of its entries."""
    from nivp_dist.bench.pinn import Pinn, Settings
    from nivp_dist.bench.pinn_training import Training
    from nivp_dist.cluster.compile_clock import CompileClock

    run = _simulation(task, {})
    t_end = run.config.integrator.t_end
    pinn = Pinn(run.problem, run.config.network, t_end, Settings(**settings))
    scorer, density = _scorer(run, pinn), run.sampler.broadest()
    courses, entries, training = {}, [], Training(pinn)
    with CompileClock() as clock:
        for seed in seeds:
            entries = training.course(seed, lambda theta: scorer.score(theta, density, t_end, 0).relative_l2)
            courses[str(seed)] = [[entry["seconds"], entry["error"]] for entry in entries]
        compiling = clock.seconds
    facts = {"problem": name, "method": PINN, "kind": settings["finish"], "p": pinn.size, "failures": []}
    stages = [[entry["stage"], entry["iteration"]] for entry in entries]
    return facts | {"compile_seconds": compiling, "courses": courses, "stages": stages}


def _simulation(task: Task, settings: dict[str, str]):
    from nivp_dist.problems import registry
    from nivp_dist.run.simulation import Simulation
    from nivp_dist.settings.files import read_config, shipped_configs

    fixed = {"devices": "1", "output.times": "[]", "fit.on_miss": "continue", "output.spectrum_every": "100000"}
    fixed |= {"output.evaluation_points": str(EVALUATION_POINTS)}
    config = read_config(shipped_configs()[task.configuration], fixed | task.settings | settings)
    return Simulation(config, registry.load(config.problem))


def _scorer(run, network):
    """A scorer of a network whose errors are always on the same points, whatever density it is given.

    Where the domain is not bounded they follow a density of the exact moments at the end; elsewhere all or half of
    them are uniform, and the density is the broadest.
    """
    import jax.numpy as jnp

    from nivp_dist.monitoring.evaluation import Scorer

    same, problem = run.sampler.broadest(), run.problem
    if not problem.domain.bounded:
        exact = problem.statistics(run.config.integrator.t_end)
        means, covariances = (jnp.broadcast_to(exact[key], getattr(same, to).shape) for key, to in _MOMENTS)
        same = same._replace(means=means, covariances=covariances)
    scorer = Scorer(problem, network, run.sampler, EVALUATION_POINTS, seed=0)
    score = scorer.score
    scorer.score = lambda theta, density, t, number: score(theta, same, t, 0)
    return scorer


_MOMENTS = (("mean", "means"), ("covariance", "covariances"))

# Shown ------------------------------------------------------------------------------------------------

EARLIEST = 0.02  # core seconds: before that pictures show nothing
BUDGETS = (0.25, 0.5, 1.0)  # shares of the seconds of a training, at which the table has its error


def tables(records: Records) -> list[Table]:
    head = ["problem", "method", "p", "seeds", "compiling, s", "core seconds", "relative L2 error"]
    by_problem = sorted(records.values(), key=lambda record: (list(TASKS).index(record["problem"]), record["method"]))
    rows = [row for record in by_problem for row in _rows(record)]
    return [Table("Error at the end against core seconds, without compiling", [head, *rows])]


def _rows(record: dict) -> list[list[str]]:
    courses = [course for course in record["courses"].values() if course]
    what = f"{record['method']}, {FINISHES.get(record['kind'], record['kind'])}"
    facts = [record["problem"], what, str(record["p"]), str(len(courses)), number(record["compile_seconds"])]
    if not courses:
        return [[*facts, MISSING, "; ".join(record["failures"]) or MISSING]]
    if record["method"] == OURS:
        ends = list(zip(*(course[-1] for course in courses)))
        return [[*facts, number(statistics.median(ends[0])), median_and_range(ends[1])]]
    whole = min(course[-1][0] for course in courses)
    times = [share * whole for share in BUDGETS]
    return [[*facts, number(s), median_and_range(least_until(course, s) for course in courses)] for s in times]


def draw(records: Records, figure: Figure) -> None:
    problems = list(dict.fromkeys(record["problem"] for record in records.values()))
    for place, problem in zip(figure.subplots(1, len(problems), squeeze=False)[0], problems):
        _panel(place, [record for record in records.values() if record["problem"] == problem])
        place.set_title(problem)
        place.set_xlabel("core seconds, without compiling")
    figure.axes[0].set_ylabel("relative L2 error at the end")
    handles = [dict(zip(*reversed(place.get_legend_handles_labels()))) for place in figure.axes]
    together = {label: handle for each in handles for label, handle in each.items()}
    figure.legend(list(together.values()), list(together), loc="outside lower center", ncols=3, frameon=False)


def _panel(place: Axes, records: list[dict]) -> None:
    ours = [record for record in records if record["method"] == OURS]
    points = [course[-1] for record in ours for course in record["courses"].values() if course]
    if points:
        place.plot(*zip(*points), "o", color="C0", label=OURS, zorder=3)
        medians = [[statistics.median(column) for column in zip(*ends)] for record in ours if (ends := _ends(record))]
        place.plot(*zip(*sorted(medians)), color="C0")
    for colour, record in zip(("C1", "C2"), [record for record in records if record["method"] == PINN]):
        for i, course in enumerate(record["courses"].values()):
            known = [(s, error) for s, error in course if s > 0 and error is not None]
            label = f"{PINN}: {FINISHES[record['kind']]}" if i == 0 else None
            place.plot(*zip(*known), color=colour, lw=1.2, label=label)
    place.set_xscale("log")
    place.set_yscale("log")
    place.set_xlim(left=EARLIEST)
    place.set_ylim(top=2.0)


def _ends(record: dict) -> list:
    return [course[-1] for course in record["courses"].values() if course]


STUDY = Study(
    name="parabolic",
    question="Is Neural IVP better than a physics-informed network on parabolic problems, at equal time and error?",
    cases=cases,
    tables=tables,
    answer=answer,
    draw=draw,
    timed=True,
)
