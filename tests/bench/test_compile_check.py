"""Programs compiled for GPUs that are not there, and what is read from a compiled program."""

import importlib.util
import os
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.mesh import AXIS, make_mesh
from nivp_dist.bench import compile_check, gpu_targets, hlo
from nivp_dist.errors import InputError
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.integration.step_points import StepPoints
from nivp_dist.network.network import build_network
from nivp_dist.points.sampling import Sampler
from nivp_dist.problems import registry
from nivp_dist.settings.files import read_config


@pytest.fixture
def plugin():
    """Skips a test where jax has no plugin for CUDA. In CI, where it must be there, the test fails."""
    if not any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in gpu_targets.CUDA):
        why = "there is no plugin of jax for CUDA here: pip install --no-deps jax-cuda12-plugin jax-cuda12-pjrt"
        (pytest.fail if os.environ.get("NIVP_REQUIRE_GPU_PLUGIN") == "1" else pytest.skip)(why)


def of_steps(mesh, **settings):
    """The programs of a step of a small problem on the mesh, one after the other as they are compiled."""
    config = read_config("fokker_planck_trap_5d", {"network.width": "20"} | settings)
    problem = registry.load(config.problem)
    network = build_network(config.network, problem)
    galerkin = Galerkin(Discretisation(network, problem, config.sampling, mesh), config.solver)
    shapes = compile_check._Shapes(mesh, network)
    return compile_check._of_steps(galerkin, shapes, shapes.points(config.sampling.points))


@pytest.mark.parametrize(
    "gpus, method, in_loop",
    [(8, "pcg", 1), (64, "pcg", 1), (8, "dual_pcg", 4), (64, "dual_pcg", 4), (8, "primal", None), (64, "dual", None)],
)
def test_the_programs_of_a_solver_on_gpus(plugin, gpus, method, in_loop):
    """No call to the host, only known libraries, and as many all-reduces in an iteration as the method needs.

    With "dual_pcg" it is the vector of p numbers, that of `rank`, and two groups of dot products.
    """
    programs = of_steps(gpu_targets.mesh_of("h200", gpus), **{"solver.method": method, "sampling.points": "8192"})
    approximation, velocity = next(programs), next(programs)
    for program in (approximation, velocity):
        assert not [*compile_check._problems(program, 2 * 10**9), *compile_check._warnings(program)]
    collectives = [loop.collectives for loop in velocity.contents.loops if loop.trips is None and loop.collectives]
    assert collectives == ([] if in_loop is None else [{"all-reduce": in_loop}])


def test_a_sketch_of_millions_of_parameters_is_made_in_few_blocks(plugin):
    """p = 3 million and 65,536 points on each GPU: with blocks as on a CPU it would take 13,000 trips."""
    settings = {"network.width": "1200", "sampling.points": str(8 * 65_536), "solver.method": "pcg"}
    approximation = next(of_steps(gpu_targets.mesh_of("h200", 8), **settings))
    trips = max(loop.trips for loop in approximation.contents.loops if loop.trips)
    assert 1 < trips <= compile_check.MOST_TRIPS
    assert approximation.memory < 30e9


def test_a_whole_run(plugin):
    reported = []
    report = compile_check.examine(read_config("heat_2d"), "h200", 8, reported.append)
    assert [program.name for program in report.programs] == [program.name for program in reported]
    names = "points density approximation velocity error check decomposition approximation round".split()
    assert [program.name.split()[0].strip(",") for program in reported] == names
    text = compile_check.lines(report)
    assert text[0] == "8 x H200: p = 769, n = 3,000, method primal" and text[-1] == "no problem found"
    assert text[1] == "every device holds 25 vectors of p numbers at once, 154 kB, as a whole"
    (velocity,) = (compile_check.line(program) for program in reported if program.name == "velocity")
    assert "sends 2 all-reduce of 2.04 MB" in velocity  # the symmetric parts of a matrix of 769^2 numbers
    assert all(program.memory < 1e9 for program in reported)


@pytest.mark.parametrize(
    "settings, names",
    [
        ({"method": "solution"}, ["points", "field at candidates", "points by the solution"]),
        ({"method": "residual"}, ["points", "residual at candidates", "points by the residual"]),
        ({"method": "paths"}, ["points", "starts of paths", "paths"]),
    ],
)
def test_the_programs_of_all_kinds_of_points(settings, names):
    """On devices that are here. A hundred steps of a path are a loop of a hundred trips."""
    config = read_config("double_well_5d", {"network.width": "4", "sampling.points": "64"})
    config = config.model_copy(update={"sampling": config.sampling.model_copy(update=settings)})
    problem, mesh = registry.load(config.problem), make_mesh(2)
    network = build_network(config.network, problem)
    galerkin = Galerkin(Discretisation(network, problem, config.sampling, mesh), config.solver)
    drawn = StepPoints(config.sampling, Sampler(config.sampling, problem.domain, True, mesh), galerkin)
    programs = [*compile_check._of_points(drawn, compile_check._Shapes(mesh, network), 64)]
    assert [program.name for program in programs] == names
    trips = [loop.trips for program in programs for loop in program.contents.loops]
    assert (100 in trips) == (settings["method"] == "paths")


def test_a_run_that_does_not_fit_is_a_problem():
    contents = hlo.Contents({}, [hlo.Loop(100, {})], {"xla_ffi_python_gpu_callback", "__cublas$gemm", "strange"})
    program = compile_check.Program("velocity", 1.0, 2 * 10**11, contents)
    too_large, strange, callback = compile_check._problems(program, gpu_targets.TARGETS["h200"].memory)
    assert too_large.startswith("velocity: takes 200 GB of the 151 GB that a GPU has beside whole vectors of p numbers")
    assert "calls strange" in strange and "calls back to the host" in callback
    assert [*compile_check._warnings(program)] == ["velocity: a loop of 100 trips, more than 64"]


def test_a_program_that_xla_cannot_compile_is_a_problem():
    class Broken:
        def lower(self, *_):
            return self

        def compile(self):
            raise jax.errors.JaxRuntimeError("INTERNAL: no tiles\n  further lines")

    program = compile_check._compiled("velocity", Broken())
    assert compile_check.line(program) == "velocity: not compiled"
    (problem,) = compile_check._problems(program, 10**9)
    assert problem.startswith("velocity: XLA cannot compile it (INTERNAL: no tiles): try XLA_FLAGS=--xla_gpu")


@pytest.mark.parametrize(
    "gpu, count, line",
    [("a1", 8, "--compile-for a1: known are h100, h200"), ("h100", 12, "--gpus 12: more than 8 must")],
)
def test_a_mesh_that_cannot_be_made(gpu, count, line):
    with pytest.raises(InputError, match=f"^{line}"):
        gpu_targets.mesh_of(gpu, count)


def test_without_the_plugin_the_wheels_are_named(monkeypatch):
    def missing(name):
        raise gpu_targets.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(gpu_targets.metadata, "version", missing)
    with pytest.raises(InputError, match=f"pip install --no-deps jax-cuda12-plugin=={jax.__version__}"):
        gpu_targets.mesh_of("h200", 8)


@pytest.mark.devices
@pytest.mark.parametrize("devices", [k for k in (2, 4) if k <= jax.device_count()])
def test_contents_of_a_program_with_loops(devices):
    """Five known trips without a collective, and an unknown number of trips with two all-reduces and one all-gather."""
    mesh = make_mesh(devices)

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(P(AXIS), P()), out_specs=P(), check_vma=False)
    def function(x, limit):
        x = jax.lax.scan(lambda x, _: (jnp.sin(x) @ jnp.ones((8, 8)), None), x, length=5)[0]

        def body(carry):
            x, total = carry
            first = jax.lax.psum(jnp.sum(x), AXIS)
            everywhere = jax.lax.all_gather(x * first, AXIS)
            return x + jnp.sum(everywhere), total + jax.lax.psum(jnp.sum(x * jnp.sum(everywhere)), AXIS)

        return jax.lax.while_loop(lambda carry: carry[1] < limit, body, (x, jnp.zeros(())))[1]

    found = hlo.contents(function.lower(jnp.ones((32, 8)), 1.0).compile().as_text() or "")
    assert [loop.collectives for loop in found.loops if loop.trips == 5] == [{}]
    (unknown,) = (loop.collectives for loop in found.loops if loop.trips is None)
    assert unknown == {"all-reduce": 2, "all-gather": 1}
    assert found.collectives["all-reduce"] == (2, 16)
    assert found.collectives["all-gather"] == (1, 32 * 8 * 8)
