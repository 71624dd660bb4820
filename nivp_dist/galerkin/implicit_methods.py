"""The choice of the linear solver of implicit steps by counted operations, and what a correction costs.

The figures here are those of CPU cores: on a GPU no implicit step has been timed.
"""

from nivp_dist.galerkin.hardware import CORE, Hardware
from nivp_dist.galerkin.methods import direct_work, initial_rank
from nivp_dist.network.network import Network
from nivp_dist.settings.automatic import mu_of
from nivp_dist.settings.model import SolverSettings

# For corrections of implicit steps: how many times longer an operation takes in a product with a vector than in the
# matrix A^T W A; how many columns of a sketch take as long as a product; and how many take as long as the rows that a
# sketch is made of. Measured on one core (heat in 2 dimensions, n = 3 p, p = 477 and 2,041): 32 and 31, and a sketch of
# rank 128 takes as long as 6 and 8 products.
IMPLICIT_PRODUCT, IMPLICIT_COLUMNS, IMPLICIT_ROWS = 32.0, 26.0, 64.0
# Iterations that are assumed for a correction: 4 to 18 were measured with rank 128 at mu = 1e-10 (heat in 1 and 2
# dimensions, KdV), and up to 43 at 1e-12.
IMPLICIT_ITERATIONS = 20
# How many times longer a correction of an implicit step by the matrix takes than a velocity by the primal matrix.
# Measured in whole runs on one core: 3.4 for heat in two dimensions (p = 769), 3.4 for Burgers' equation in two
# (p = 465), 3.1 for a channel (p = 449), 3.8 for thermal waves (p = 369), 2.1 for Allen-Cahn in one (p = 705).
CORRECTION = 3.4


def implicit_method(solver: SolverSettings, network: Network, points: int, ordered: bool, hardware: Hardware) -> str:
    """The method for the corrections of implicit steps: "primal" or "pcg", for "auto" by counted operations.

    For CG, IMPLICIT_ITERATIONS are assumed, and an approximation of FIRST_RANK for each correction.

    ordered: whether sums over points have a fixed order, which those of CG for corrections have not.
    """
    if solver.method != "auto":
        return solver.method
    if ordered:
        return "primal"
    rank = initial_rank("pcg", network, mu_of(solver), solver.max_rank)
    iterative = iterative_work(network, points, 1, IMPLICIT_ITERATIONS, rank)
    by_the_matrix = network.size**2 <= hardware.entries and correction_work(network, points) <= iterative
    return "primal" if by_the_matrix else "pcg"


def correction_work(network: Network, points: int) -> float:
    """Operations of a correction of an implicit step by the matrix A^T W A, from explicit rows of A."""
    return 2.0 * points * network.outputs * network.size**2 + network.size**3 / 3


def iterative_work(network: Network, points: int, approximations: int, iterations: float, rank: int) -> float:
    """Operations of so many approximations of that rank, and of so many iterations, for corrections by CG."""
    products = iterations + approximations * products_per_approximation(rank)
    return points * network.outputs * 4.0 * network.size * IMPLICIT_PRODUCT * products


def products_per_approximation(rank: int) -> float:
    """How many CG iterations of a correction take the time of one approximation of that rank."""
    return (IMPLICIT_ROWS + rank) / IMPLICIT_COLUMNS


def correction_in_velocities(network: Network, points: int, hardware: Hardware = CORE) -> float:
    """Operations of a device for a correction by the matrix, to be compared with ``velocities_work``.

    ``correction_work`` counts the operations of the same correction, to be compared with ``iterative_work``. The
    operations of the two take different times.
    """
    return CORRECTION * direct_work(network, points, hardware=hardware)["primal"]
