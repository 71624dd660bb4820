"""`nivp doctor --compile-for GPU`: the programs of a run, compiled for GPUs that are not there.

It tells before a job is queued whether the programs compile, what memory they take on each GPU, what the GPUs send each
other, and which loops are long. It tells nothing of speed, and nothing of the numbers.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.mesh import AXIS, multiple_of_points
from nivp_dist.bench import gpu_targets, hlo
from nivp_dist.fitting.fit import DAMPING_FACTORS
from nivp_dist.formatting import count as count_of
from nivp_dist.formatting import size as size_text
from nivp_dist.galerkin.methods import ITERATIVE, decomposes
from nivp_dist.galerkin.taylor import usable_order
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.integration.step_points import StepPoints
from nivp_dist.network.forms import for_problem
from nivp_dist.network.network import Network, network_of
from nivp_dist.points.mixture import Density
from nivp_dist.points.points import Points
from nivp_dist.points.sampling import Sampler
from nivp_dist.problems import registry
from nivp_dist.problems.base import Problem
from nivp_dist.run import whole_vectors
from nivp_dist.run.solvers import Solvers
from nivp_dist.settings.automatic import number_of_components, number_of_points, resolved
from nivp_dist.settings.model import Config

MOST_TRIPS = 64  # of a loop of known length: each trip starts kernels, and many short ones leave a GPU idle
# Products by cuBLAS. Those of Triton do not compile for the rhs of fokker_planck_production_50d (jax 0.10.2).
WITHOUT_TRITON = "--xla_gpu_enable_triton_gemm=false"
# What XLA may call: products, factorisations and sorting of NVIDIA's libraries, and Triton.
KNOWN_CALLS = (
    "__cublas",
    "cublas",
    "cusolver",
    "cu_",
    "__triton",
    "triton",
    "__cub$",
    "Sharding",
    "SPMD",
    "AllocateBuffer",
)


class Program(NamedTuple):
    """A compiled program.

    Attributes:
        name: what it does. seconds: of its compilation here. memory: bytes on a GPU, arguments and results included.
        contents: its collectives, loops and calls. failure: what XLA says where it cannot compile the program.
    """

    name: str
    seconds: float
    memory: int
    contents: hlo.Contents
    failure: str = ""


class Report(NamedTuple):
    """What was compiled. heading: the run, and what of it is whole on every GPU, a line each.

    problems: one line each, what would not work. warnings: one line each, what would be slow.
    """

    heading: list[str]
    programs: list[Program]
    problems: list[str]
    warnings: list[str]


def examine(config: Config, gpu: str, count: int, report: Callable[[Program], Any] = lambda program: None) -> Report:
    """Compile the programs of the configuration for so many GPUs.

    report: called with each program as soon as it is compiled. Raises InputError as ``gpu_targets.mesh_of``, and
    where theta alone is too long for such a GPU.
    """
    mesh, problem = gpu_targets.mesh_of(gpu, count, config.cluster.reproducible), registry.load(config.problem)
    config = for_problem(config, problem)
    network = network_of(config, problem)
    config, programs = resolved(config, network.size, network.log_density), []
    memory, whole = gpu_targets.TARGETS[gpu].memory, whole_vectors.count(config, network.size)
    whole_vectors.require_room(whole, memory)
    for program in _programs(config, problem, network, mesh):
        report(program)
        programs.append(program)
    method = Solvers(config, problem, mesh).of_steps(network).method
    n = number_of_points(config.sampling)
    heading = f"{count} x {gpu.upper()}: p = {network.size:,}, n = {n:,}, method {method}"
    room = memory - whole.bytes_beside_a_program
    problems = [line for program in programs for line in _problems(program, room)]
    warnings = [line for program in programs for line in _warnings(program)]
    return Report([heading, str(whole)], programs, problems, warnings)


def line(program: Program) -> str:
    """A program in one line of text."""
    if program.failure:
        return f"{program.name}: not compiled"
    found = program.contents
    sent = [f"{count} {name} of {size_text(size)}" for name, (count, size) in sorted(found.collectives.items())]
    text = f"{program.name}: {size_text(program.memory)}, sends {', '.join(sent) or 'nothing'}"
    for loop in found.loops:
        if loop.trips is None and loop.collectives:
            each = " and ".join(f"{count} {name}" for name, count in sorted(loop.collectives.items()))
            text += f" ({each} in each iteration of a loop)"
    if longest := max((loop.trips for loop in found.loops if loop.trips), default=0):
        text += f", longest loop {count_of(longest, 'trip')}"
    return f"{text}; compiled in {program.seconds:.0f} s"


def lines(report: Report) -> list[str]:
    """What follows the lines of the programs."""
    text = [f"warning: {warning}" for warning in report.warnings]
    text += [f"problem: {problem}" for problem in report.problems] or ["no problem found"]
    return [*report.heading, *text]


def _problems(program: Program, memory: int) -> Iterator[str]:
    if program.failure:
        yield f"{program.name}: XLA cannot compile it ({program.failure}): try XLA_FLAGS={WITHOUT_TRITON}"
    if program.memory > memory:
        mend = "more GPUs, a smaller sampling.chunk, or solver.shard_vectors"
        free = f"of the {size_text(memory)} that a GPU has beside whole vectors of p numbers"
        yield f"{program.name}: takes {size_text(program.memory)} {free}: {mend}"
    for call in sorted(program.contents.custom_calls):
        if "callback" in call:
            yield f"{program.name}: calls back to the host ({call}): the problem's rhs must be of jax operations alone"
        elif not call.startswith(KNOWN_CALLS):
            yield f"{program.name}: calls {call}, which is not known to be fast or to give the same bits twice"


def _warnings(program: Program) -> Iterator[str]:
    for loop in program.contents.loops:
        if loop.trips and loop.trips > MOST_TRIPS:
            yield f"{program.name}: a loop of {loop.trips} trips, more than {MOST_TRIPS}"


def _programs(config: Config, problem: Problem, network: Network, mesh: Mesh) -> Iterator[Program]:
    """The programs of the steps and of the Gauss-Newton rounds of fits."""
    shapes = _Shapes(mesh, network)
    sampler = Sampler(config.sampling, problem.domain, network.log_density, mesh, squares=network.form == "direct")
    solvers, n = Solvers(config, problem, mesh), number_of_points(config.sampling)
    galerkin = solvers.of_steps(network)
    yield from _of_points(StepPoints(config.sampling, sampler, galerkin, config.integrator.t_start), shapes, n)
    density, points = shapes.density(number_of_components(config.sampling)), shapes.points(n)
    values = shapes.sharded(n, problem.outputs)
    yield _compiled("density", sampler.fit, density, points, values, sweeps=1)
    yield from _of_steps(galerkin, shapes, points)
    fits = solvers.of_fits(network, config.fit.points)
    yield from _of_fits(fits, usable_order(config.fit.order, network.dtype), shapes, shapes.points(config.fit.points))


def _of_points(drawn: StepPoints, shapes: "_Shapes", n: int) -> Iterator[Program]:
    """The programs that draw the points of a step, as sampling.method says."""
    settings, galerkin, key = drawn.settings, drawn.galerkin, shapes.key()
    count = n * settings.oversampling if settings.method in ("solution", "residual", "paths") else n
    yield _compiled("points", drawn.sampler.program(count), key, shapes.density(number_of_components(settings)))
    candidates = shapes.points(count)
    theta, field = shapes.theta(), shapes.sharded(len(candidates.x), galerkin.network.outputs)
    if settings.method == "solution":
        yield _compiled("field at candidates", galerkin.field, theta, candidates.x)
        yield _compiled("points by the solution", drawn.select_by_solution, key, candidates, field, n=n)
    if settings.method == "residual":
        yield _compiled("residual at candidates", galerkin.residual_squares, theta, shapes.whole(), theta, candidates)
        squares = shapes.sharded(len(candidates.x))
        yield _compiled("points by the residual", drawn.select_by_residual, key, candidates, squares, n=n)
    if drawn.paths is not None:
        starts = shapes.sharded(len(candidates.x))
        yield _compiled("starts of paths", drawn.paths.starts, key, candidates, starts, n=n)
        x = shapes.points(n).x
        is_sample = shapes.sharded(len(x), dtype=bool)
        yield _compiled("paths", drawn.paths.walk, key, shapes.whole(), x, is_sample)


def _of_steps(galerkin: Galerkin, shapes: "_Shapes", points: Points) -> Iterator[Program]:
    n, m = len(points.x), galerkin.network.outputs
    theta, v, t, rate = shapes.theta(), shapes.whole(galerkin.network.size), shapes.whole(), shapes.sharded(n, m)
    preparation = galerkin.preparation(galerkin.initial_rank)
    yield _compiled(f"approximation, rank {galerkin.initial_rank}", preparation, theta, points, shapes.key())
    shared = shapes.of(jax.eval_shape(preparation, theta, points, shapes.key()), galerkin.shared_spec)
    guess = shapes.sharded(n * m) if galerkin.method == "dual_pcg" else v
    yield _compiled("velocity", galerkin.velocity, theta, t, points, shared, guess)
    yield _compiled("error of a step", galerkin.step_norms, theta, t, theta, v, rate, rate, points)
    yield _compiled("check of the residual", galerkin.check_residual, theta, t, v, points)
    yield from _of_spectrum(galerkin, shapes, (theta, t, points), shared)


def _of_spectrum(galerkin: Galerkin, shapes: "_Shapes", at: tuple, shared) -> Iterator[Program]:
    """The programs that measure the spectrum, for the solver that a run begins with."""
    programs, (theta, t, points) = galerkin.spectrum, at
    if decomposes(galerkin.network):
        yield _compiled("decomposition of M", programs.eigen, theta, t, points, shared.basis)
    else:
        yield _compiled("spectrum of F", programs.rhs, theta, t, points, shared.basis, shared.mu)
    if galerkin.method in ITERATIVE:
        yield _compiled("spectrum by probes", programs.probes, theta, points, shared, shapes.key())


def _of_fits(galerkin: Galerkin, order: int, shapes: "_Shapes", points: Points) -> Iterator[Program]:
    theta, rank = shapes.theta(), galerkin.initial_rank if galerkin.method in ITERATIVE else 0
    preparation = galerkin.preparation(rank, adapted_basis=False)
    yield _compiled(f"approximation in a fit, rank {rank}", preparation, theta, points, shapes.key())
    shared = shapes.of(jax.eval_shape(preparation, theta, points, shapes.key()), galerkin.shared_spec)
    misfit, dampings = shapes.sharded(len(points.x), galerkin.network.outputs), shapes.whole(len(DAMPING_FACTORS))
    yield _compiled("round of a fit", galerkin.corrections(order), theta, points, misfit, shared, dampings)


def _compiled(name: str, program, *arguments, **static) -> Program:
    started = time.perf_counter()
    lowered = program.lower(*arguments, **static)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return Program(name, time.perf_counter() - started, 0, hlo.contents(""), str(error).splitlines()[0])
    memory = compiled.memory_analysis()
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return Program(name, time.perf_counter() - started, total, hlo.contents(compiled.as_text() or ""))


class _Shapes:
    """The arguments of the programs as shapes with shardings, for no array can lie on a GPU that is not there."""

    def __init__(self, mesh: Mesh, network: Network):
        self.mesh, self.network = mesh, network

    def whole(self, *shape: int, dtype=jnp.float64) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(self.mesh, P()))

    def sharded(self, *shape: int, dtype=jnp.float64) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(self.mesh, P(AXIS)))

    def theta(self):
        return self.whole(self.network.size)

    def key(self):
        key = jax.eval_shape(lambda: jax.random.key(0))
        return self.whole(*key.shape, dtype=key.dtype)

    def points(self, n: int) -> Points:
        n += -n % multiple_of_points(self.mesh)
        return Points(self.sharded(n, self.network.dimension), self.sharded(n), self.sharded(n))

    def density(self, components: int) -> Density:
        k, d = components, self.network.dimension
        return Density(*(self.whole(*shape) for shape in ((k,), (k, d), (k, d, d))))

    def of(self, shapes, specs):
        """A tree of shapes with the shardings of a tree of PartitionSpecs, which may stand for whole branches."""

        def place(spec, branch):
            sharding = NamedSharding(self.mesh, spec)
            return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), branch)

        return jax.tree.map(place, specs, shapes, is_leaf=lambda leaf: isinstance(leaf, P))
