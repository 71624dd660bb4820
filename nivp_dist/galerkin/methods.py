"""Which method solves for a velocity or a correction of a fit: conjugate gradients, or one of two direct solves."""

from nivp_dist.config import SolverSettings
from nivp_dist.networks import Network

FIT_SOLVES, FIT_MU = 3, 1e-12  # dampings of a round, and one of them that is typical


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
    widths = sum(layer.rows + layer.columns for layer in network.layers)
    solves, mu = (FIT_SOLVES, FIT_MU) if fitting else (1, solver.mu)
    iterations = 4 * mu**-0.15
    work = {
        "primal": points * p**2 / 2 + solves * p**3 / 3,
        "dual": rows**2 * widths + solves * rows**3 / 3,
        "pcg": solves * 5 * iterations * 4 * rows * p + 4 * rows * p * min(400, p) / 3,
    }
    return min(work, key=work.get)
