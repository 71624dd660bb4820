"""A velocity of the trap (right-hand side, layer factors, CG) and its parts: times, memory, and a profile."""

import gzip
import re
import shutil
import tempfile
from functools import cached_property, partial
from pathlib import Path

import jax
import jax.numpy as jnp

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.bench.gpu.sizes import Size, dtype_of
from nivp_dist.bench.gpu.stages import Plan
from nivp_dist.bench.timing import compiled, interleaved
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.network.network import build_network
from nivp_dist.points.sampling import Sampler
from nivp_dist.problems.fokker_planck_trap import FokkerPlanckTrap
from nivp_dist.settings.model import NetworkSettings, Precision, SamplingSettings, SolverSettings

TRACED: Precision = "float32"  # of the velocity that is profiled
LARGEST_FILE = 2**24  # bytes of a file of a profile: what many machines send back


class Evaluation:
    """The programs of a velocity; each is compiled when it is first needed."""

    def __init__(self, size: Size, precision: Precision):
        self.size, problem, mesh = size, FokkerPlanckTrap(dimension=size.d), make_mesh(1)
        settings = NetworkSettings(width=size.width, depth=size.depth, dtype=dtype_of(precision), frequencies=2)
        network, sampling = build_network(settings, problem), SamplingSettings(points=size.n)
        solver = SolverSettings(method="dual_pcg", rtol=1e-4, max_iterations=size.iterations, precision=precision)
        self.network, self.galerkin = network, Galerkin(Discretisation(network, problem, sampling, mesh), solver)
        self.sampler = Sampler(sampling, problem.domain, network.log_density, mesh)

    @cached_property
    def start(self):
        """(theta, points)."""
        points = self.sampler.draw(jax.random.key(1), self.sampler.broadest())
        return self.network.initialise(jax.random.key(0)), points

    @cached_property
    def approximation(self):
        return compiled(self.galerkin.preparation(self.size.rank), *self._key)

    @cached_property
    def _key(self):
        return *self.start, jax.random.key(2)

    @cached_property
    def arguments(self):
        """Of the velocity."""
        (theta, points), shared = self.start, self.approximation.call(*self._key)
        return theta, 0.0, points, shared, self.galerkin.initial_guess(jnp.zeros(self.network.size), points)

    @cached_property
    def program(self):
        return compiled(self.galerkin.velocity, *self.arguments)

    def compilation(self) -> dict:
        """Seconds of the two programs, and the memory that XLA has planned for them."""
        return {"approximation": self.approximation.facts, "velocity": self.program.facts}

    def velocity(self) -> dict:
        """The time of a velocity without that of its approximation, and the largest memory in use so far."""
        call = partial(self.program.call, *self.arguments)
        seconds, result = interleaved({"velocity": call}, self.size.rounds).median("velocity"), call()
        return {
            "d": self.size.d,
            "p": self.network.size,
            "n": self.size.n,
            "rank": self.size.rank,
            "seconds": seconds,
            "iterations": result.quality.iterations,
            "cg_residual": result.quality.solver_residual,
            "peak_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        }

    def parts(self) -> dict:
        """The times of the approximation of K, of a velocity with one product, and of the norms of a step."""
        (theta, t, points, shared, guess), zero = self.arguments, jnp.zeros(self.network.size)
        single = shared._replace(iteration_limit=jnp.ones_like(shared.iteration_limit))
        rates = 2 * [self.galerkin.rate(theta, zero, points)]
        calls = {
            "approximation": partial(self.approximation.call, *self._key),
            "velocity with one product": partial(self.program.call, theta, t, points, single, guess),
            "norms": partial(self.galerkin.step_norms, theta, t, theta, zero, *rates, points),
        }
        samples = interleaved(calls, self.size.rounds)
        return {"seconds": {name: samples.median(name) for name in calls}}


def plan(it: Evaluation) -> Plan:
    """Compilation comes first, because it may take all of the time."""
    return [("compilation", it.compilation), ("velocity", it.velocity), ("parts", it.parts)]


def trace_plan(it: Evaluation, folder: Path) -> Plan:
    """folder: for the files of the profile, which collect describes."""
    return [("profile", partial(_profile, it, folder))]


def _profile(evaluation: Evaluation, folder: Path) -> dict:
    call = partial(evaluation.program.call, *evaluation.arguments)
    jax.block_until_ready(call())
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # the calls of Python would be most of the files
    with tempfile.TemporaryDirectory() as raw:
        with jax.profiler.trace(raw, profiler_options=options):
            jax.block_until_ready(call())
        return collect(Path(raw), folder)


def collect(raw: Path, folder: Path, largest: int = LARGEST_FILE) -> dict:
    """Move the files below `raw` into one folder. What is larger than `largest` bytes is compressed, or left out.

    Returns {"files": {path: bytes}, "left_out": {name: bytes}}.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files, left_out = {}, {}
    for path in sorted(path for path in raw.rglob("*") if path.is_file()):
        # The folder of a file is called after the time of its profile.
        target = folder / re.sub(r"[^A-Za-z0-9._-]", "_", f"{path.parent.name}-{path.name}")
        if path.stat().st_size > largest:
            with path.open("rb") as source, gzip.open(path := path.with_name(f"{path.name}.gz"), "wb") as packed:
                shutil.copyfileobj(source, packed)
            target = target.with_name(f"{target.name}.gz")
        if (bytes_ := path.stat().st_size) > largest:
            left_out[target.name] = bytes_
        else:
            shutil.move(path, target)
            files[str(target)] = bytes_
    return {"files": files, "left_out": left_out, "passed": not left_out}
