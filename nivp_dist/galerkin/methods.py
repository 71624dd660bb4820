"""The choice of the linear solver, and of the rank that CG starts with, by counted operations.

The method "auto" is resolved to conjugate gradients or a direct solve, each for the parameters or for the samples. No
clock is read, so that two runs of one configuration choose the same.
"""

import math

from nivp_dist.galerkin import kernel
from nivp_dist.galerkin.hardware import CORE, Hardware
from nivp_dist.network.network import Network
from nivp_dist.settings.automatic import mu_of
from nivp_dist.settings.model import SolverSettings

ITERATIVE = ("pcg", "dual_pcg")
FIT_SOLVES = 3  # dampings that a round of a fit tries
FIT_MU = 1e-12  # the least of them, relative to tr M, in the late rounds of a fit
# Operations, half a second of two cores: a round of a fit that saves fewer is not worth the seconds in which the
# programs of another method are compiled.
WORTH_COMPILING = 4e10
FIRST_RANK = 128  # a rank whose cost is small beside that of the iterations
# A measurement of the spectrum decomposes matrices of at most so many rows: in 5 s on one core, with 33 MB each.
MOST_DECOMPOSED = 2048
# Elsewhere it solves for so many vectors of random signs, in so many steps of CG each, and iterates on F. With four the
# standard error of the effective dimension is at most 1 / sqrt(2) of its root; with 32 steps the quadrature of
# advection (p = 929, rank 256, mu = 1e-10) is exact to 1e-3.
PROBES, PROBE_STEPS, RHS_STEPS = 4, 32, 64
MEASUREMENT_RANK = 256  # of the sketch that these steps are preconditioned with where the solver has none
# Operations of an eigendecomposition over p^3, at the rate of the primal matrix. 3 to 7 were measured on one core, for
# p = 500 to 2,200.
DECOMPOSITION = 8.0
MEASURED_SHARE = 1 / 50  # of the operations of the steps; what measurements of the spectrum take by default


def choose_method(
    solver: SolverSettings,
    network: Network,
    points: int,
    fit_order: int = 0,
    hardware: Hardware = CORE,
    ordered: bool = False,
) -> str:
    """The method of the settings; for "auto" the one with the fewest operations for a velocity.

    The primal matrix takes half of the n p^2 operations of a symmetric product, because it is made from factors.
    For CG, numbers of iterations are assumed, since they are not known in advance:

    - "pcg" took 45 at mu = 1e-9 (advection in 2 dimensions), 180 at 1e-13 (Burgers) and more than 300 at 1e-9 (a
      mixture in 50 dimensions). Twice the smallest of these is assumed, and a velocity's share of the sketch.
    - "dual_pcg" took 25 at mu = 1e-10 with p = 2,342 (the trap in 5 dimensions), 60 at 1e-9 with 2,765 (Vlasov), and
      40 to 160 at 1e-10 with 1,500 to 1,900 in 8 and 10 dimensions, where direct solves are faster. 100 at 1e-9 are
      assumed.

    Methods that would not fit into the memory of a device are left out, and so are those that are assumed to need more
    than solver.max_iterations, unless nothing else is left.

    Args:
        points: over all devices.
        fit_order: 0 for a velocity; else for a round of a fit, which solves for FIT_SOLVES dampings, with so many
            right-hand sides each (``taylor.curve``).
        hardware: whose operations are counted.
        ordered: on an ordered mesh (``backend.mesh``), which "dual_pcg" does not support.
    """
    if solver.method != "auto":
        return solver.method
    mu = mu_of(solver)
    rank = initial_rank("dual_pcg", network, mu, solver.max_rank)
    solves, mu = (FIT_SOLVES, FIT_MU) if fit_order else (1, mu)
    work = _work(network, points, mu, solves, rank, max(1, fit_order), hardware)
    possible = [method for method in work if _fits_into_memory(method, network, points, hardware)]
    possible = [method for method in possible if not (ordered and method == "dual_pcg")]
    solved = [method for method in possible if assumed_iterations(method, mu) <= solver.max_iterations]
    return min(solved or possible, key=work.__getitem__)


def _fits_into_memory(method: str, network: Network, points: int, hardware: Hardware) -> bool:
    """Whether the matrix of a direct solve, or the smallest approximation of "dual_pcg", fits into a device.

    That of "pcg" always does, because its rank is chosen so (``largest_rank``).
    """
    rows = points * network.outputs
    entries = {"primal": network.size**2, "dual": rows**2}
    if method in entries:
        return entries[method] <= hardware.entries
    return method == "pcg" or rows / hardware.devices * FIRST_RANK <= hardware.kernel_entries


def assumed_iterations(method: str, mu: float) -> float:
    """The iterations that are assumed for a velocity (``choose_method`` has the measurements); 0 for direct solves."""
    return {"pcg": 8 * mu**-0.15, "dual_pcg": max(10.0, 100 * (mu / 1e-9) ** -0.3)}.get(method, 0.0)


def largest_rank(method: str, network: Network, rows: int, parts: int, hardware: Hardware) -> int:
    """The largest rank whose approximation fits into a device.

    Args:
        rows: samples of a device. parts: into how many the p rows of the sketch of "pcg" are split.
    """
    if method == "pcg":
        return max(1, hardware.entries // -(-network.size // parts))
    return max(1, hardware.kernel_entries // rows)


def dual_pcg_suits_fit(network: Network, points: int, damping: float, order: int, hardware: Hardware = CORE) -> bool:
    """Whether "dual_pcg" is much cheaper than a direct solve in a round of a fit at that damping.

    A tenth of the damping is counted with, which the round tries too. Fits begin with large dampings, at which few
    iterations suffice. order: of the corrections.
    """
    work = _work(network, points, damping / 10, FIT_SOLVES, fit_rank(network, damping), order, hardware)
    return work["dual_pcg"] + WORTH_COMPILING < min(work["primal"], work["dual"])


def fit_rank(network: Network, damping: float) -> int:
    """The rank of "dual_pcg" in that round: a power of two, because a program is compiled for each rank."""
    return min(network.size, 2 ** round(math.log2(initial_rank("dual_pcg", network, damping / 10, network.size))))


def _work(
    network: Network, points: int, mu: float, solves: int, rank: int, order: int = 1, hardware: Hardware = CORE
) -> dict[str, float]:
    """Operations of a device, by method, for so many solves on the same points, with `order` right-hand sides each.

    Once a matrix is factorised, another right-hand side costs next to nothing.
    """
    work = direct_work(network, points, solves, hardware)
    for method in ITERATIVE:
        # Two more velocities of the step share the sketch of "pcg".
        shared = _approximation("pcg", network, points, min(400, network.size), hardware) / 3
        if method == "dual_pcg":
            shared = _approximation(method, network, points, rank, hardware)
        iterations = solves * order * assumed_iterations(method, mu)
        work[method] = shared + iterations * _iteration(method, network, points, rank, hardware)
    return work


def direct_work(network: Network, points: int, solves: int = 1, hardware: Hardware = CORE) -> dict[str, float]:
    """Operations of a device for so many direct solves with one matrix, for the parameters ("primal") and the samples
    ("dual"). Each device factorises the whole matrix."""
    p, rows, form = network.size, points * network.outputs, hardware.rates.form / hardware.devices
    matrix = rows**2 * _sides(network)
    return {"primal": form * points * p**2 / 2 + solves * p**3 / 3, "dual": form * matrix + solves * rows**3 / 3}


def direct_method(network: Network, points: int, hardware: Hardware) -> str | None:
    """The direct method that a run by CG may switch to; None where its matrix is too large."""
    work = direct_work(network, points, hardware=hardware)
    possible = [method for method in work if _fits_into_memory(method, network, points, hardware)]
    return min(possible, key=work.__getitem__, default=None)


def velocities_work(
    method: str,
    network: Network,
    points: int,
    rank: int,
    velocities: int,
    iterations: int,
    hardware: Hardware = CORE,
) -> float:
    """Operations of a device for so many velocities of a step by `method`, with so many CG iterations in all."""
    if method in ITERATIVE:
        return step_work(method, network, points, rank, iterations / max(velocities, 1), velocities, hardware)
    return velocities * direct_work(network, points, hardware=hardware)[method]


def initial_rank(method: str, network: Network, mu: float, limit: int) -> int:
    """A small rank, at most `limit`, which a run doubles where that pays.

    For "dual_pcg" it is a third to a half of the best ranks measured: 384 with p = 2,342 at mu = 1e-10 and with 2,765
    at 1e-9, 512 with 7,441 at 1e-9.
    """
    if method == "pcg":
        return min(network.size, limit, FIRST_RANK)
    rank = 2.5 * math.sqrt(network.size) * (mu / 1e-9) ** -0.12
    return min(network.size, limit, max(FIRST_RANK, 64 * round(rank / 64)))


def step_work(
    method: str,
    network: Network,
    points: int,
    rank: int,
    iterations: float,
    velocities: int,
    hardware: Hardware = CORE,
) -> float:
    """Operations of a device for a step: so many velocities, of so many iterations each, which share an
    approximation."""
    solves = velocities * iterations * _iteration(method, network, points, rank, hardware)
    return _approximation(method, network, points, rank, hardware) + solves


def iterations_after_doubling(iterations: float) -> float:
    """The iterations of "dual_pcg" with twice the rank, of which `iterations` were taken before.

    A third of those beyond the first two remains (measured: advection, the wave and the trap at mu from 1e-11 to 1e-9).
    """
    return min(iterations, 2 + (iterations - 2) / 3)


def iterations_per_approximation(
    method: str, network: Network, points: int, rank: int, hardware: Hardware = CORE
) -> float:
    """How many CG iterations take the time of one approximation of that rank."""
    made = _approximation(method, network, points, rank, hardware)
    return made / _iteration(method, network, points, rank, hardware)


def _approximation(method: str, network: Network, points: int, rank: int, hardware: Hardware) -> float:
    """Operations of a device for the approximation of M or K."""
    rates, rows = hardware.rates, points * network.outputs / hardware.devices
    if method == "pcg":
        return rates.form * rows * 4.0 * network.size * rank
    # The choice of columns is repeated by every device. On a single one it is a part of what was measured.
    repeated = kernel.repeated_operations(_sides(network), rank) * (1 - 1 / hardware.devices)
    return rates.build * rows * kernel.operations(network, rank) + repeated


def _iteration(method: str, network: Network, points: int, rank: int, hardware: Hardware) -> float:
    """Operations of a device for a CG iteration. The sketch of "pcg" has p rows, not n, and is not counted."""
    rates, rows = hardware.rates, points * network.outputs / hardware.devices
    each = rates.product * 4.0 * network.size + (rates.stream * 4.0 * rank if method == "dual_pcg" else 0.0)
    return rows * each + rates.iteration


def _sides(network: Network) -> int:
    return sum(layer.rows + layer.columns for layer in network.layers)


def measurement_rank(network: Network) -> int:
    """The rank of the sketch for a measurement of the spectrum where direct solves have none."""
    return min(network.size, MEASUREMENT_RANK)


def decomposes(network: Network) -> bool:
    """Whether a measurement of the spectrum decomposes M."""
    return network.size <= MOST_DECOMPOSED


def measurement_interval(method: str, network: Network, points: int, mu: float, rank: int, velocities: int) -> int:
    """The number of steps between two measurements of the spectrum that take MEASURED_SHARE of the work of the steps.

    Both are counted for one core, so that the outputs of a run do not depend on its devices.

    velocities: of a step, by `method`, whose iterations are assumed as in ``choose_method``.
    """
    work = velocities * _work(network, points, mu, 1, rank)[method]
    products = PROBES * PROBE_STEPS if method in ITERATIVE else 0
    measured = 0.0
    if decomposes(network):
        measured = points * network.size**2 / 2 + DECOMPOSITION * network.size**3
    else:
        products = PROBES * PROBE_STEPS + RHS_STEPS
        if method not in ITERATIVE:
            measured += _approximation("pcg", network, points, measurement_rank(network), CORE)
    measured += products * _iteration(method, network, points, rank, CORE)
    return max(1, math.ceil(measured / (MEASURED_SHARE * work)))
