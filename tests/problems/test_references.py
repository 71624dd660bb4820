"""Every shipped problem: its reference starts at its initial condition and satisfies its own equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.problems.advection import Advection
from nivp_dist.problems.allen_cahn import AllenCahn
from nivp_dist.problems.base import evaluate_reference, has_reference
from nivp_dist.problems.burgers import Burgers, BurgersFront, BurgersFrontWalls
from nivp_dist.problems.channel import Channel
from nivp_dist.problems.double_well import DoubleWell
from nivp_dist.problems.fisher_kpp import FisherKPP
from nivp_dist.problems.fokker_planck_trap import FokkerPlanckTrap
from nivp_dist.problems.heat import Heat
from nivp_dist.problems.heat_neumann import HeatNeumann
from nivp_dist.problems.linear_fokker_planck import LinearFokkerPlanck
from nivp_dist.problems.log_fokker_planck import LogFokkerPlanck
from nivp_dist.problems.mean_field_wells import MeanFieldWells
from nivp_dist.problems.moving_trap import MovingTrap
from nivp_dist.problems.nonlinear_schroedinger import NonlinearSchroedinger
from nivp_dist.problems.periodic import PeriodicAllenCahn, PeriodicBurgers, PeriodicHeat
from nivp_dist.problems.thermal_waves import ThermalWaves
from nivp_dist.problems.time_varying_advection import TimeVaryingAdvection
from nivp_dist.problems.vlasov import Vlasov
from nivp_dist.problems.wave import Wave
from nivp_dist.problems.wave_maps import WaveMaps


class FullNoise(LinearFokkerPlanck):
    """Every override at once: a full drift matrix, three noises in two dimensions, its own forcing and start."""

    dimension: int = 2

    def drift_matrix(self):
        return np.array([[-0.3, 0.8], [-0.2, -0.6]])

    def forcing(self, t):
        return jnp.stack([jnp.cos(t), 0.3 * t])

    def diffusion_matrix(self):
        return np.array([[0.3, 0.1, 0.2], [-0.1, 0.4, 0.3]])

    def mixture(self):
        covariances = np.array([[[0.2, 0.05], [0.05, 0.3]], [[0.1, -0.02], [-0.02, 0.1]], np.diag([0.2, 0.2])])
        return np.array([0.2, 0.5, 0.3]), np.array([[0.0, 1.0], [-1.0, 0.0], [0.5, 0.5]]), covariances


# problem, time, centre and half-width of the points tested, step of the differences
CASES = [
    (Advection(), 0.3, -0.3, 0.08, 2e-3),
    (Advection(dimension=3, velocity=-0.5), 0.4, 0.2, 0.08, 2e-3),
    (Heat(), 0.1, 0.0, 0.3, 4e-3),
    (Heat(dimension=3, conductivity=0.5), 1.0, 0.0, 0.9, 2e-2),
    (Wave(), 0.4, 0.0, 0.3, 2e-3),
    (Wave(), 6.5, 0.0, 0.95, 2e-3),  # after reflections
    (Wave(dimension=1, width=0.1), 2.0, 0.0, 0.95, 4e-3),
    (Wave(dimension=3, speed_squared=1.0, width=0.1), 0.4, 0.0, 0.6, 4e-3),
    (Wave(width=0.2, wavenumber=2.0), 0.7, 0.0, 0.5, 4e-3),
    (Wave(width=0.2, wavenumber=8.0), 0.5, 0.0, 0.5, 2e-3),
    (WaveMaps(width=0.1), 0.2, 0.0, 0.3, 4e-3),
    (WaveMaps(width=0.1, coordinates="kerr_schild"), 0.2, 0.0, 0.3, 4e-3),
    (FokkerPlanckTrap(), 0.05, 0.0, 0.8, 4e-3),
    (FokkerPlanckTrap(alpha=2.0, drift_target=-0.3), 1.0, -0.2, 0.2, 4e-3),
    (FokkerPlanckTrap(dimension=2, alpha=-0.5), 0.6, 0.1, 0.4, 4e-3),
    (FokkerPlanckTrap(dimension=1), 2.5, 0.2, 0.3, 4e-3),
    (MovingTrap(dimension=3), 0.7, 1.7, 0.5, 4e-3),
    (LinearFokkerPlanck(), 0.8, 0.0, 1.0, 1e-2),
    (LinearFokkerPlanck(dimension=4), 0.3, 0.0, 1.0, 1e-2),
    (FullNoise(), 0.6, 0.0, 1.0, 1e-2),
    (TimeVaryingAdvection(), 0.3, np.array([1.5, 2.2, 3.2, 3.2, 4.0]), 0.2, 2e-3),
    (TimeVaryingAdvection(dimension=2), 1.8, np.array([3.4, 5.7]), 0.2, 2e-3),
    (Vlasov(), 3.0, 0.0, 0.4, 4e-3),
    (AllenCahn(), 1.5, 3.0, 3.0, 4e-3),
    (Burgers(), 0.3, -0.3, 0.5, 2e-3),
    (BurgersFront(), 0.3, 0.0, 0.4, 1e-2),
    (PeriodicHeat(), 0.7, 3.0, 3.0, 2e-2),
    (PeriodicAllenCahn(), 1.0, 3.0, 3.0, 2e-2),
    (PeriodicBurgers(diffusion=0.05), 0.5, 3.0, 3.0, 1e-2),
    (Channel(), 0.7, np.array([3.0, 0.0]), np.array([3.0, 0.9]), 1e-2),
    (BurgersFrontWalls(), 0.4, 0.0, 0.9, 1e-2),
    (ThermalWaves(), 0.3, 0.5, 0.48, 1e-2),
    (NonlinearSchroedinger(speed=0.6), 2.0, 1.0, 3.0, 1e-2),
    (HeatNeumann(), 0.5, 0.5, 0.48, 4e-3),
    (HeatNeumann(dimension=3, conductivity=0.02, sharpness=2.0), 1.0, 0.5, 0.48, 4e-3),
    (DoubleWell(dimension=3), 0.3, 0.0, 0.7, 1e-2),
    (MeanFieldWells(coupling=2.0), 0.3, 0.0, 0.7, 1e-2),
    (LogFokkerPlanck(), 0.5, 0.0, 3.0, 1e-1),
    (FisherKPP(), 1.5, 0.0, 4.0, 4e-2),
]
NAMES = [f"{type(case[0]).__name__}-{case[0].domain.dimension}d-{case[1]}" for case in CASES]


def derivatives(problem, x, t, h):
    """Values, gradients and Hessians of the reference at one point by fourth-order differences: (m, ...)."""
    d = problem.domain.dimension
    offsets = np.array([-2, -1, 0, 1, 2])
    first = np.array([1, -8, 0, 8, -1]) / (12 * h)
    second = np.array([-1, 16, -30, 16, -1]) / (12 * h**2)
    grid = np.zeros((d, d, 5, 5, d))
    for i in range(d):
        for j in range(d):
            grid[i, j, :, :, i] += h * offsets[:, None]
            if i != j:
                grid[i, j, :, :, j] += h * offsets[None, :]
    values = evaluate_reference(problem, x + grid.reshape(-1, d), t).reshape(d, d, 5, 5, -1)
    value = values[0, 0, 2, 2]
    slope = np.einsum("a,iam->mi", first, values[np.arange(d), np.arange(d), :, 0])
    curvature = np.einsum("a,b,ijabm->mij", first, first, values)
    straight = np.einsum("a,iam->mi", second, values[np.arange(d), np.arange(d), :, 0])
    curvature[:, np.arange(d), np.arange(d)] = straight
    return value, slope, curvature


def integrals(problem, t):
    """What rhs takes beside u, x and t: the exact mean and mass of a density with a mean field."""
    if problem.integrals is None:
        return ()
    exact = problem.statistics(t)
    return (jnp.append(exact["mean"], exact["mass"]),)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_reference_satisfies_the_equation(case):
    """u_t of the reference by differences, against rhs applied to its second-order Taylor polynomial at each point."""
    problem, t, centre, half_width, h = case
    x = centre + half_width * np.random.default_rng(5).uniform(-1, 1, (6, problem.domain.dimension))
    shifted = [evaluate_reference(problem, x, t + k * h) for k in (-2, -1, 1, 2)]
    time_derivative = (shifted[0] - 8 * shifted[1] + 8 * shifted[2] - shifted[3]) / (12 * h)

    @jax.jit
    def right_hand_side(point, value, slope, curvature):
        def taylor(y):
            step = y - point
            components = value + slope @ step + jnp.einsum("mij,i,j->m", curvature, step, step) / 2
            return components[0] if problem.outputs == 1 else components

        return jnp.atleast_1d(problem.rhs(taylor, point, t, *integrals(problem, t)))

    computed = np.stack([right_hand_side(point, *derivatives(problem, point, t, h)) for point in x])
    scale = np.abs(time_derivative).max(axis=0)
    assert np.all(scale > 0)
    np.testing.assert_allclose(computed / scale, time_derivative / scale, atol=5e-4)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_reference_starts_at_the_initial_condition(case):
    problem = case[0]
    rng = np.random.default_rng(6)
    half_width = getattr(problem, "width", 0.3)  # inside the pulse, where there is something to compare
    centre = np.asarray(problem.domain.centre)
    x = np.concatenate([centre + half_width * rng.normal(size=(200, problem.domain.dimension)), centre[None]])
    domain = problem.domain
    x = np.clip(x, domain.centre - 0.99 * domain.scale, domain.centre + 0.99 * domain.scale) if domain.bounded else x
    start = np.asarray(jax.jit(jax.vmap(problem.initial))(x)).reshape(len(x), -1)
    peak = np.abs(start).max()
    assert has_reference(problem) and peak > 0
    np.testing.assert_allclose(evaluate_reference(problem, x, 0.0), start, atol=4e-6 * peak)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_shapes_and_dtypes_under_jit_and_vmap(case, dtype):
    """initial and rhs keep the dtype of x, and give a scalar or (m,) as the number of outputs says."""
    problem, t = case[:2]
    x = jnp.asarray(np.asarray(problem.domain.centre) + 0.01 * np.ones((4, problem.domain.dimension)), dtype)
    expected = (4,) if problem.outputs == 1 else (4, problem.outputs)
    start = jax.jit(jax.vmap(problem.initial))(x)
    further = [values.astype(dtype) for values in integrals(problem, t)]
    slope = jax.jit(jax.vmap(lambda y, time: problem.rhs(problem.initial, y, time, *further), in_axes=(0, None)))(x, t)
    assert start.shape == slope.shape == expected
    assert start.dtype == slope.dtype == dtype
    assert np.all(np.isfinite(slope))


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_listed_with_summary_and_reference_kind(case):
    kind = type(case[0])
    for text in (kind.summary, kind.reference_kind, kind.__doc__):
        assert isinstance(text, str) and text
    assert "\n" not in kind.summary + kind.reference_kind
    assert len(kind.output_names) == kind.outputs
