"""Features of the coordinates for networks of users, which satisfy the boundary conditions exactly."""

from collections.abc import Sequence

from nivp_dist.network.embedding import check_frequencies, embedding
from nivp_dist.problems.domains import Domain
from nivp_dist.settings.model import NetworkSettings


def boundary_features(x, domain: Domain, frequencies: int | Sequence[int] = 2, even: Sequence[int] = ()):
    """The features of x that the built-in network has: (n, k).

    Every function of them is periodic along periodic axes, and has zero slope at ends where a slope is prescribed, of
    Neumann and Robin axes. (The factor that a Robin end needs beside that is put around the network.)

    Args:
        x: (n, d), what a network is called with: [-1, 1] along bounded axes.
        domain: of the problem, d axes.
        frequencies: L, the number of sines and cosines, of 1, 2, 4, ... 2^(L-1) times the lowest wavenumber: one
            number, or one for each axis. These axes need at least 1; 0 passes a coordinate on as it is.
        even: axes along which every function of the features is to be even.

    Raises InputError for a list of another length, and for 0 along an axis that needs one.
    """
    counts = frequencies if isinstance(frequencies, int) else list(frequencies)
    check_frequencies(NetworkSettings(frequencies=counts), domain)
    return embedding(x, domain, NetworkSettings(frequencies=counts), tuple(even))
