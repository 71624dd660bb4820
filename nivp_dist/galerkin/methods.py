"""Which method solves for a velocity or a correction of a fit: conjugate gradients or a direct solve, each for the
parameters or for the samples; and with what rank CG starts. By counted work."""

from nivp_dist.config import SolverSettings
from nivp_dist.galerkin import kernel
from nivp_dist.networks import Network

ITERATIVE = ("pcg", "dual_pcg")
FIT_SOLVES, FIT_MU = 3, 1e-12  # dampings of a round, and one of them that is typical
FIRST_RANK = 128
# Operations of the primal matrix and its factorisation in the time of one of a product with a vector, of one of a
# matrix with a vector, and of one of the approximation of K. Measured on one and two cores (60 and 100 GFlop/s;
# p = 2,342 and 7,441, n = 9,000, ranks 384 and 512): 1.5 and 2.1, 5.6 and 10, 1 and 2.
PRODUCT, STREAM, BUILD = 2.0, 10.0, 1.5


def choose_method(solver: SolverSettings, network: Network, points: int, fitting: bool = False) -> str:
    """`auto`: the cheapest by counted work of one velocity. The clock of a run does not choose, for then two runs of
    one configuration would differ.

    The matrix from its factors takes half of the n p^2 operations of a symmetric product, whatever the outputs of a
    shared trunk. CG for the parameters: its iterations are 45 at mu = 1e-9 (advection in 2 dimensions), 180 at 1e-13
    (Burgers), more than 300 at 1e-9 (a mixture in 50), and twice the least are reckoned with; to them comes the step's
    share of the sketch. For the samples, as many as that is worth: 25 at mu = 1e-10 with p = 2,342 (the trap in 5
    dimensions), 60 at 1e-9 with 2,765 (Vlasov), 40 to 160 at 1e-10 with 1,500 to 1,900 in 8 and 10 dimensions, where
    direct solves are faster; 100 at 1e-9 are reckoned with.

    fitting: of a round of a fit, which solves for three dampings that become small: from one matrix, or by CG each.
    """
    if solver.method != "auto":
        return solver.method
    p, rows = network.size, points * network.outputs
    solves, mu = (FIT_SOLVES, FIT_MU) if fitting else (1, solver.mu)
    rank = first_rank("dual_pcg", solver, network)
    iterations, dual_iterations = 8 * mu**-0.15, max(10.0, 100 * (mu / 1e-9) ** -0.3)
    work = {
        "primal": points * p**2 / 2 + solves * p**3 / 3,
        "dual": rows**2 * sum(layer.rows + layer.columns for layer in network.layers) + solves * rows**3 / 3,
        "pcg": solves * PRODUCT * iterations * 4 * rows * p + 4 * rows * p * min(400, p) / 3,
        "dual_pcg": rows
        * (BUILD * kernel.operations(network, rank) + solves * dual_iterations * dual_iteration(network, rank)),
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
    spent = BUILD * (kernel.operations(network, 2 * rank) - kernel.operations(network, rank))
    return velocities * saved > spent


def dual_iteration(network: Network, rank: int) -> float:
    """Operations a sample of an iteration with it."""
    return PRODUCT * 4.0 * network.size + STREAM * 4.0 * rank
