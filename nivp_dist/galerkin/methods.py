"""Which method solves for a velocity or a correction of a fit: conjugate gradients or a direct solve, each for the
parameters or for the samples; and with what rank CG starts. By counted work."""

from nivp_dist.config import SolverSettings
from nivp_dist.networks import Network

ITERATIVE = ("pcg", "dual_pcg")
FIT_SOLVES, FIT_MU = 3, 1e-12  # dampings of a round, and one of them that is typical
FIRST_RANK = 128
# Operations of matrix products at full rate in the time of one of a product with a vector, and of one of a matrix with
# a vector, which runs at the rate of memory.
PRODUCT, STREAM = 5, 50
# Of the approximation of K: its operations run at this part of the full rate.
BUILD = 3.5
DUAL_ITERATIONS = 12  # of CG with the rank that it starts with


def choose_method(solver: SolverSettings, network: Network, points: int, fitting: bool = False) -> str:
    """`auto`: the cheapest by counted work of one velocity, in operations of matrix products at full rate.

    Measured on two cores in float64: the matrix from its factors takes half of the n p^2 operations of a symmetric
    product, whatever the outputs of a shared trunk; CG runs at a fifth of the rate; its iterations are 45 at mu = 1e-9
    (advection in 2 dimensions), 180 at 1e-13 (Burgers), more than 300 at 1e-9 (a mixture in 50): twice the least are
    reckoned with. To them comes the step's share of the sketch.

    fitting: of a round of a fit, which solves for three dampings that become small: from one matrix, or by CG each.
    """
    if solver.method != "auto":
        return solver.method
    p, rows = network.size, points * network.outputs
    solves, mu = (FIT_SOLVES, FIT_MU) if fitting else (1, solver.mu)
    iterations = 4 * mu**-0.15
    work = {
        "primal": points * p**2 / 2 + solves * p**3 / 3,
        "dual": rows**2 * _widths(network) + solves * rows**3 / 3,
        "dual_pcg": dual_build(network, first_rank("dual_pcg", solver, network)) * rows
        + solves * DUAL_ITERATIONS * dual_iteration(network, first_rank("dual_pcg", solver, network)) * rows,
        "pcg": solves * PRODUCT * iterations * 4 * rows * p + 4 * rows * p * min(400, p) / 3,
    }
    return min(work, key=work.get)


def first_rank(method: str, solver: SolverSettings, network: Network) -> int:
    """Small, to be doubled as need be: of `dual_pcg` more where mu is small."""
    if method == "pcg":
        return min(network.size, FIRST_RANK)
    rank = network.size / 16 * (solver.mu / 1e-9) ** -0.12
    return min(network.size, solver.max_rank, max(FIRST_RANK, 64 * round(rank / 64)))


def doubling_pays(network: Network, rank: int, iterations: float, velocities: float) -> bool:
    """Whether twice the rank is cheaper for `dual_pcg`, where a velocity takes so many iterations, and so many
    velocities share an approximation. Of the iterations beyond the first two it leaves a third (measured: advection,
    the wave and the trap at mu from 1e-11 to 1e-9)."""
    left = min(iterations, 2 + (iterations - 2) / 3)
    saved = iterations * dual_iteration(network, rank) - left * dual_iteration(network, 2 * rank)
    return velocities * saved > dual_build(network, 2 * rank) - dual_build(network, rank)


def dual_build(network: Network, rank: int) -> float:
    """Operations a sample of the approximation of that rank, see ``kernel``: columns, their elimination, and F^T F."""
    return BUILD * rank * (2.0 * _widths(network) + 4.0 * rank)


def dual_iteration(network: Network, rank: int) -> float:
    """Operations a sample of an iteration with it."""
    return PRODUCT * 4.0 * network.size + STREAM * 4.0 * rank


def _widths(network: Network) -> int:
    return sum(layer.rows + layer.columns for layer in network.layers)
