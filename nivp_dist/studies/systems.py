"""The linear systems of a state that is computed in this process, and what a solver takes for them.

Imported by studies when they measure. Seconds are those of the processor, because other programs of the machine
lengthen them little; with one core (``Study.timed``) they are the seconds that pass where nothing else runs.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse

from nivp_dist.backend import random_keys
from nivp_dist.bench.timing import SHORTEST, compiled
from nivp_dist.galerkin.regularisation import Regularisation
from nivp_dist.galerkin.velocity import Galerkin, Velocity
from nivp_dist.points.points import Points
from nivp_dist.problems import registry
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.state import State
from nivp_dist.settings.files import read_config
from nivp_dist.settings.model import SolverSettings

LONG = 3.0  # seconds of a call that is timed once


class System(NamedTuple):
    """M v = F at theta (p,) and time t, on points; key: of the approximations that CG is preconditioned with."""

    theta: jax.Array
    t: float
    points: Points
    key: jax.Array


def simulation(configuration: str, settings: dict[str, str]) -> Simulation:
    """The simulation of a shipped configuration with other settings, on one device."""
    config = read_config(configuration, {"devices": "1", "output.spectrum_every": "0"} | settings)
    return Simulation(config, registry.load(config.problem))


def begun(run: Simulation, seed: int, steps: int = 0) -> State:
    """The state of a run with that seed after its initial fit and some steps; all seeds share the programs."""
    state = run.begin(seed)
    while not run.fits.is_done(state):
        state = run.fits.advance(state)
    state = run.after_output(run.fits.finish_initial(state)[0])
    for _ in range(steps):
        state = run.step(state, lambda: None).state
    return state


def system_of(run: Simulation, state: State, n: int) -> System:
    """The system of the state's next step on n points."""
    key = random_keys.step_points_key(state.run_key, state.step)
    points = run.sampler.draw(key, state.density, n)
    return System(state.theta, state.t, points, random_keys.step_sketch_key(state.run_key, state.step))


class Solver:
    """One linear solver on systems of one size, compiled.

    Args:
        settings: of [solver], in place of those of the run. system: any of that size. rate_rtol: see ``Galerkin``.

    Attributes:
        memory: bytes of the larger program, for preparation or velocity, as XLA has planned it (memory_analysis): its
            arguments, results and temporary arrays.
    """

    def __init__(self, run: Simulation, settings: dict[str, Any], system: System, rate_rtol: float = 0.0):
        solver = SolverSettings.model_validate(run.config.solver.model_dump() | settings)
        sampling = run.config.sampling.model_copy(update={"points": len(system.points.x)})
        galerkin = Galerkin(run.galerkin.discretisation._replace(sampling=sampling), solver, rate_rtol=rate_rtol)
        arguments = system.theta, system.points, system.key
        self._prepare = compiled(galerkin.preparation(galerkin.initial_rank), *arguments)
        shared = self.prepare(system)
        # Every solve begins at zero: seconds do not depend on what was solved before.
        self.guess = galerkin.initial_guess(jnp.zeros_like(system.theta), system.points)
        inputs = system.theta, system.t, system.points, shared, self.guess
        self._velocity = compiled(galerkin.velocity, *inputs)
        self.memory = max(_bytes(self._prepare, arguments), _bytes(self._velocity, inputs))

    def prepare(self, system: System) -> Regularisation:
        """mu and the approximation of M or K."""
        return self._prepare.call(system.theta, system.points, system.key)

    def velocity(self, system: System, shared: Regularisation) -> Velocity:
        """The velocity, with its right-hand side."""
        return self._velocity.call(system.theta, system.t, system.points, shared, self.guess)


def _bytes(program, arguments) -> int:
    held = (leaf.nbytes for leaf in jax.tree.leaves(arguments) if isinstance(leaf, jax.Array))
    return int(program.facts["bytes"]) + sum(held)


def processor_seconds(call: Callable, rounds: int = 3) -> float:
    """Seconds of the processor for a call that returns arrays: the least of some rounds, or of one call if it is LONG.

    Whatever else the machine does lengthens a round, and never shortens it.
    """
    first = _once(call, 1)
    if first > LONG:
        return first
    count = max(1, round(SHORTEST / max(first, 1e-7)))
    return min(_once(call, count) for _ in range(rounds))


def _once(call: Callable, count: int) -> float:
    started = time.process_time()
    for _ in range(count):
        jax.block_until_ready(call())
    return (time.process_time() - started) / count


class DenseRate:
    """The rate J v* of the velocity v* that a dense solve in float64 finds, with a Jacobian by jax.jacrev.

    v* minimises |W^(1/2) (J v - f)|^2 + mu |w|^2, where w are the coefficients of v in the basis that the solvers
    regularise in. It is found by a QR factorisation, which does not square the condition number as the solvers do.
    """

    def __init__(self, run: Simulation, program: Callable, system: System, shared: Regularisation):
        """program: ``bench.velocity.jacobian_and_rate`` of the run. shared: mu and the basis."""
        network, p = run.network, run.network.size
        j, f = program(system.theta, system.points.x, system.t)
        self.root = np.sqrt(np.repeat(np.asarray(system.points.weights), network.outputs))
        self.s = self.root[:, None] * j
        # The parameters by their coefficients: v = T w. T is diagonal but for the layers that have frames.
        t = jax.jit(jax.vmap(lambda w: network.from_basis(w, shared.basis), out_axes=1))(jnp.eye(p))
        in_basis = self.s @ scipy.sparse.csr_array(np.asarray(t))
        equations = np.column_stack([in_basis, self.root * f])
        damping = np.column_stack([np.sqrt(float(shared.mu)) * np.eye(p), np.zeros(p)])
        # The last column of R is Q^T of the right-hand side.
        r = np.asarray(np.linalg.qr(np.concatenate([equations, damping]), mode="r"))
        self.rate = in_basis @ scipy.linalg.solve_triangular(r[:p, :p], r[:p, p])

    def error(self, v) -> float:
        """|J (v - v*)| / |J v*| of a velocity v (p,), in the norm of the field."""
        return float(np.linalg.norm(self.s @ np.asarray(v) - self.rate) / np.linalg.norm(self.rate))
