"""Which method solves for a velocity or a correction of a fit: conjugate gradients or a direct solve, each for the
parameters or for the samples; and with what rank CG starts. By counted work."""

import math

from nivp_dist.galerkin import kernel
from nivp_dist.network.network import Network
from nivp_dist.settings.model import SolverSettings

ITERATIVE = ("pcg", "dual_pcg")
FIT_SOLVES, FIT_MU = 3, 1e-12  # dampings of a round, and one of them that is typical
# Operations that a round of a fit must save, half a second, for another method takes seconds to compile.
WORTH_COMPILING = 4e10
FIRST_RANK = 128
MATRIX = 2**30  # entries of a direct solve's, at most: 8 GiB on every device
# Operations of the primal matrix and its factorisation in the time of one of a product with a vector, of one of a
# matrix with a vector, and of one of the approximation of K. Measured on one and two cores (60 and 100 GFlop/s;
# p = 2,342 and 7,441, n = 9,000, ranks 384 and 512): 1.5 and 2.1, 5.6 and 10, 1 and 2.
PRODUCT, STREAM, BUILD = 2.0, 10.0, 1.5


def choose_method(
    solver: SolverSettings, network: Network, points: int, fitting: bool = False, devices: int = 1
) -> str:
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
    solves, mu = (FIT_SOLVES, FIT_MU) if fitting else (1, solver.mu)
    work = _work(network, points, mu, solves, first_rank("dual_pcg", network, solver.mu, solver.max_rank))
    if points / devices * network.outputs * FIRST_RANK > kernel.ENTRIES:
        del work["dual_pcg"]
    return min(work, key=work.get)


def fits_by_samples(network: Network, points: int, damping: float) -> bool:
    """Whether a round of a fit at that damping, and a tenth of it, is by far cheaper with `dual_pcg` than with a direct
    solve: fits begin with large dampings, where few iterations do."""
    work = _work(network, points, damping / 10, FIT_SOLVES, fit_rank(network, damping))
    return work["dual_pcg"] + WORTH_COMPILING < min(work["primal"], work["dual"])


def fit_rank(network: Network, damping: float) -> int:
    """Of `dual_pcg` in that round: a power of two, for each is compiled for itself."""
    return min(network.size, 2 ** round(math.log2(first_rank("dual_pcg", network, damping / 10, network.size))))


def _work(network: Network, points: int, mu: float, solves: int, rank: int) -> dict[str, float]:
    p, rows = network.size, points * network.outputs
    found = direct_work(network, points, solves)
    iterations = {"pcg": 8 * mu**-0.15, "dual_pcg": max(10.0, 100 * (mu / 1e-9) ** -0.3)}
    shared = {"pcg": _approximation("pcg", network, min(400, p)) / 3}
    shared["dual_pcg"] = _approximation("dual_pcg", network, rank)
    for method in ITERATIVE:
        found[method] = rows * (shared[method] + solves * iterations[method] * _iteration(method, network, rank))
    return found


def direct_work(network: Network, points: int, solves: int = 1) -> dict[str, float]:
    """Operations of so many direct solves with one matrix, for the parameters and for the samples."""
    p, rows = network.size, points * network.outputs
    matrix = rows**2 * sum(layer.rows + layer.columns for layer in network.layers)
    return {"primal": points * p**2 / 2 + solves * p**3 / 3, "dual": matrix + solves * rows**3 / 3}


def direct_method(network: Network, points: int) -> str | None:
    """The direct solve that a run by CG may go over to; none where its matrix is too large."""
    work = direct_work(network, points)
    if min(network.size, points * network.outputs) ** 2 > MATRIX:
        return None
    return min(work, key=work.get)


def first_rank(method: str, network: Network, mu: float, limit: int) -> int:
    """Small, to be doubled as need be: of `dual_pcg` a third to a half of what was best (p = 2,342, mu = 1e-10, and
    2,765, 1e-9: 384; 7,441, 1e-9: 512)."""
    if method == "pcg":
        return min(network.size, FIRST_RANK)
    rank = 2.5 * math.sqrt(network.size) * (mu / 1e-9) ** -0.12
    return min(network.size, limit, max(FIRST_RANK, 64 * round(rank / 64)))


def step_work(method: str, network: Network, points: int, rank: int, iterations: float, velocities: int) -> float:
    """Operations of so many velocities, of so many iterations each, which share an approximation."""
    each = _approximation(method, network, rank) + velocities * iterations * _iteration(method, network, rank)
    return points * network.outputs * each


def after_doubling(iterations: float) -> float:
    """What twice the rank leaves of the iterations of "dual_pcg": of those beyond the first two a third (measured:
    advection, the wave and the trap at mu from 1e-11 to 1e-9)."""
    return min(iterations, 2 + (iterations - 2) / 3)


def anew(method: str, network: Network, rank: int) -> float:
    """CG iterations in the time of another approximation of that rank."""
    return _approximation(method, network, rank) / _iteration(method, network, rank)


def _approximation(method: str, network: Network, rank: int) -> float:
    """Operations a sample."""
    return 4.0 * network.size * rank if method == "pcg" else BUILD * kernel.operations(network, rank)


def _iteration(method: str, network: Network, rank: int) -> float:
    """Operations a sample; in "pcg" the sketch is of p, not of n, and counts for little."""
    return PRODUCT * 4.0 * network.size + (STREAM * 4.0 * rank if method == "dual_pcg" else 0.0)
