"""The wavenumbers of an initial condition, by which the outputs of a system are balanced (``balance``)."""

import jax
import jax.numpy as jnp
import numpy as np

POINTS = 2**16  # in three dimensions 130 of them lie within a pulse of width 0.05, and its wavenumber is right to 5 %
CLOSER = 2  # times that the points are drawn in the smaller box in which u0 was found
# The box is the mean of sqrt(|u0|) plus and minus this many of its standard deviations: of a Gaussian pulse 5.7 of its
# own, where it is 1e-7.
DEVIATIONS = 4.0
FEWEST = 10.0  # effective points with values of u0; a wavenumber by fewer of them is of no use


def root_mean_square_wavenumber(problem) -> float:
    """The RMS over the spectrum of u0 of its wavenumbers along an axis, in coordinates (x - centre) / scale.

    It is k with  d k^2 = sum_i int (scale_i d u0 / d x_i)^2 / int u0^2, for the output in which it is largest. The
    integrals are means over random points, twice in a smaller box around the points where u0 is not small.

    Returns 0 where too few points find u0, as with a narrow pulse in many dimensions.
    """
    domain, rng = problem.domain, np.random.default_rng(0)
    low = np.maximum(domain.lower, domain.centre - DEVIATIONS * domain.scale)
    high = np.minimum(domain.upper, domain.centre + DEVIATIONS * domain.scale)

    def squares(x):
        slopes = jnp.sum((jax.jacfwd(problem.initial)(x) * domain.scale) ** 2, axis=1)
        return problem.initial(x) ** 2, slopes

    at_points = jax.jit(jax.vmap(squares))
    for closer in range(CLOSER + 1):
        x = rng.uniform(low, high, (POINTS, domain.dimension))
        values, slopes = (np.asarray(part, np.float64) for part in at_points(x))
        if closer < CLOSER:
            low, high = _smaller_box(x, values, low, high)
    sums, effective = values.sum(axis=0), values.sum(axis=0) ** 2 / np.maximum((values**2).sum(axis=0), 1e-300)
    found = np.isfinite(sums) & (sums > 0) & (effective >= FEWEST)
    ratios = slopes.sum(axis=0)[found] / sums[found] / domain.dimension
    return float(np.sqrt(np.max(ratios, initial=0.0)))


def _smaller_box(x, values, low, high):
    """The part of the box [low, high] in which |u0| is not small, from points x (n, d) and values u0^2 (n, m)."""
    peaks = values.max(axis=0)
    weights = np.sum(values[:, peaks > 0] / peaks[peaks > 0], axis=1) ** 0.25
    if not np.isfinite(weights).all() or weights.sum() == 0:
        return low, high
    mean = np.average(x, axis=0, weights=weights)
    reach = DEVIATIONS * np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weights))
    return np.maximum(low, mean - reach), np.minimum(high, mean + reach)
