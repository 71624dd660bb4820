"""Features of the coordinates for networks of users, which satisfy the boundary conditions exactly."""

from collections.abc import Sequence

from nivp_dist.network.embedding import embedding
from nivp_dist.problems.domains import Domain
from nivp_dist.settings.model import NetworkSettings


def boundary_features(x, domain: Domain, frequencies: int | Sequence[int] = 2, even: Sequence[int] = ()):
    """The features of x that the built-in network has: (n, k).

    Every function of them is periodic along periodic axes, and has zero slope at the ends of Neumann axes.

    Args:
        x: (n, d), what a network is called with: [-1, 1] along bounded axes.
        domain: of the problem, d axes.
        frequencies: L, the number of sines and cosines, of 1, 2, 4, ... 2^(L-1) times the lowest wavenumber: one
            number, or one for each axis. Periodic and Neumann axes need at least 1; 0 passes a coordinate on as it is.
        even: axes along which every function of the features is to be even.
    """
    counts = frequencies if isinstance(frequencies, int) else list(frequencies)
    return embedding(x, domain, NetworkSettings(frequencies=counts), tuple(even))
