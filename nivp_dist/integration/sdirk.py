"""A singly diagonally implicit Runge-Kutta pair: L-stable, stiffly accurate, of orders 3 and 2.

Its stages are u_i = u_n + h sum_j a_ij L[u_j]. With U the column of all stages, h L[U] = A^-1 (U - u_n). Each stage is
thus an equation with the fields of the stages before it, and without their rates of change:

    u_i - gamma h L[u_i] = u_n + sum_(j < i) alpha_ij (u_j - u_n),    alpha = I - gamma A^-1,

and the difference of the pair is a combination of fields too,

    u_(n+1) - u_embedded = sum_j e_j (u_j - u_n),                      e = (b - b_embedded) A^-1.

(Hairer and Wanner II, IV.8, transform so.) A rate L[u_j] would multiply what the network misses of u_j by the largest
eigenvalues of L. In a mode with eigenvalue lambda the difference is u_n times that of the two stability functions, at
most two however large h lambda is. So it needs no filter (I - gamma h L)^-1, as differences that grow with h lambda do
(ibid.). On the imaginary axis the filter would hide an error: the method damps fast modes, and the equation keeps them.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nivp_dist.integration.bdf import Formula


@dataclass(frozen=True)
class Pair:
    """Stages by a (s, s), lower triangular with equal diagonal entries; the last row is b, so that the last stage is
    the step.

    Attributes:
        embedded: (s,), the weights of the second method, of order `order` - 1.
    """

    a: tuple[tuple[float, ...], ...]
    embedded: tuple[float, ...]
    order: int

    @property
    def matrix(self) -> np.ndarray:
        return np.array(self.a)

    @property
    def b(self) -> np.ndarray:
        return self.matrix[-1]

    @property
    def times(self) -> np.ndarray:
        """(s + 1,), of u_n and the stages, in units of h."""
        return np.append(0.0, self.matrix.sum(axis=1))

    @cached_property
    def error(self) -> np.ndarray:
        """(s + 1,), the coefficients of u_n and the stages in the difference of the pair."""
        return _with_start(np.linalg.solve(self.matrix.T, self.b - np.array(self.embedded)), 0.0)

    @cached_property
    def _alpha(self) -> np.ndarray:
        return np.eye(len(self.a)) - self.a[0][0] * np.linalg.inv(self.matrix)

    def stage(self, i: int, h: float) -> Formula:
        """The equation of stage i = 0, ..., s - 1 of a step of length h; `earlier` (s + 1,): of u_n and the stages."""
        row = np.where(np.arange(len(self.a)) < i, self._alpha[i], 0.0)
        return Formula(self.a[0][0] * h, _with_start(row, 1.0))


def _with_start(weights: np.ndarray, total: float) -> np.ndarray:
    """Coefficients of u_n and the stages from those of the stages, where all of them add up to `total`."""
    return np.append(total - weights.sum(), weights)


# Alexander 1977 (SIAM J. Numer. Anal. 14, 1006), with the embedded weights of Cash 1979 (J. Inst. Math. Appl. 24, 293).
# The misfit of a stage enters later ones with the factor alpha, here 3.7 at most, and 34 in the pair of order 4 with
# five stages (Hairer and Wanner II, IV.6). Measured for two solitons of KdV to t = 1 by a Fourier series, with
# rtol = 1e-3: 54 stages and an error of 5.4e-5 here, 60 and 2.6e-5 there. With random misfits of 1e-6 in all stages:
# 57 and 5.0e-5 here, 185 and 1.6e-4 there.
GAMMA = 0.43586652150845899942  # the root of g^3 - 3 g^2 + 3/2 g - 1/6 between 1/6 and 1/2
ALEXANDER = Pair(
    a=(
        (GAMMA, 0.0, 0.0),
        ((1 - GAMMA) / 2, GAMMA, 0.0),
        (-(6 * GAMMA**2 - 16 * GAMMA + 1) / 4, (6 * GAMMA**2 - 20 * GAMMA + 5) / 4, GAMMA),
    ),
    embedded=(GAMMA / (1 - GAMMA), (1 - 2 * GAMMA) / (1 - GAMMA), 0.0),
    order=3,
)
