"""Densities of stored solutions: importance sampling from a snapshot's mixture, marginals, samples. All numpy."""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from nivp_dist.problems.domains import Domain

WIDENED = 1.5  # factor of the covariances of the fitted Gaussians, as sampling.inflation by default
BROAD, BROAD_SHARE = 4.0, 0.2  # a further factor, for this share of the points: twice the width
UNIFORM_SHARE = 0.2  # of the points in a box: what the mixture does not reach has bounded weights then
PROPOSALS = 8  # importance-sampled points for every sample
SWEEPS = 40  # Metropolis steps of every sample; duplicates of the resampling have moved apart after them
SEED = 20240

Values = Callable[[np.ndarray], np.ndarray]  # points (n, d) -> the density there (n,), of any normalisation


def draw_points(
    snapshot: dict[str, np.ndarray], n: int, seed: int = SEED, domain: Domain | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Points x (n, d) of a density q, and 1 / q(x), (n,): sum(f(x) / q(x)) / n estimates the integral of f.

    q is the snapshot's mixture with larger covariances. A share of it is a still broader copy, so that q does not
    vanish in tails of the solution that reach beyond the mixture. Where axes of the domain are bounded, a share of the
    points is uniform along these, and of the mixture along the others.
    """
    weights, means, covariances = (snapshot[f"density_{part}"] for part in ("weights", "means", "covariances"))
    d, random = means.shape[1], np.random.default_rng(seed)
    weights = np.concatenate([(1 - BROAD_SHARE) * weights, BROAD_SHARE * weights]) / weights.sum()
    means = np.concatenate([means, means])
    covariances = np.concatenate([WIDENED * covariances, WIDENED * BROAD * covariances])
    roots = np.linalg.cholesky(covariances)
    component = random.choice(len(weights), n, p=weights)
    x = means[component] + np.einsum("nij,nj->ni", roots[component], random.standard_normal((n, d)))
    box = domain if domain is not None and domain.bounded_axes else None
    if box is not None:
        uniform = np.flatnonzero(random.uniform(size=n) < UNIFORM_SHARE)
        bounded = list(box.bounded_axes)
        x[uniform[:, None], bounded] = box.sample(random, len(uniform))[:, bounded]
    log_q = _log_mixture(weights, means, covariances, x)
    if box is not None:
        along = _marginal_of(weights, means, covariances, x, list(box.real_axes))
        log_uniform = np.where(box.contains(x), np.log(UNIFORM_SHARE / box.bounded_volume) + along, -np.inf)
        log_q = np.logaddexp(np.log(1 - UNIFORM_SHARE) + log_q, log_uniform)
    return x, np.exp(-log_q)


def _log_mixture(weights, means, covariances, x) -> np.ndarray:
    """log of the density of Gaussians (K,), (K, d), (K, d, d) at x (n, d): (n,)."""
    logs = []
    for weight, mean, root in zip(weights, means, np.linalg.cholesky(covariances)):
        z = np.linalg.solve(root, (x - mean).T)
        logs.append(np.log(weight) - 0.5 * np.sum(z**2, axis=0) - np.sum(np.log(np.diag(root))))
    return np.logaddexp.reduce(logs, axis=0) - 0.5 * means.shape[1] * np.log(2 * np.pi)


def _marginal_of(weights, means, covariances, x, axes: list[int]) -> np.ndarray | float:
    """log of the density of these Gaussians along some axes, at x (n, d): (n,); 0 for no axis."""
    if not axes:
        return 0.0
    return _log_mixture(weights, means[:, axes], covariances[:, axes][:, :, axes], x[:, axes])


def marginal(x: np.ndarray, mass: np.ndarray, edges: Sequence[np.ndarray]) -> np.ndarray:
    """The marginal density of k coordinates in each bin: x (n, k), mass (n,) = f / q, edges k arrays (bins + 1,).

    Returns (bins of the first coordinate, bins of the second, ...).
    """
    shares, volumes = (
        np.histogramdd(x, edges, weights=mass)[0],
        functools.reduce(np.multiply.outer, map(np.diff, edges)),
    )
    return shares / (len(x) * volumes)


def samples(
    snapshot: dict[str, np.ndarray], density: Values, n: int, seed: int = 0, domain: Domain | None = None
) -> np.ndarray:
    """n samples (n, d) of a density: importance resampling, then Metropolis steps that keep the density invariant.

    Resampling alone repeats the points of large weight; the steps (random walks with the covariances of the fitted
    Gaussians, scaled by 2.38 / sqrt(d): Roberts, Gelman, Gilks 1997) move them apart and correct what is left of the
    proposal. They do not cross between modes far apart: how many samples each gets is what resampling found, and is
    only as good as the mixture fits (``sampling.components``). Where the density is negative it counts as zero.
    """
    random = np.random.default_rng(seed)
    x, inverse = draw_points(snapshot, PROPOSALS * n, seed, domain)
    value = np.maximum(density(x), 0.0)
    cumulative = np.cumsum(value * inverse)
    if not cumulative[-1] > 0:
        raise ValueError("the density vanishes at all points that were drawn: it cannot be sampled")
    # Systematic resampling: the numbers of copies are as even as they can be.
    chosen = np.searchsorted(cumulative, (np.arange(n) + random.uniform()) / n * cumulative[-1], side="right")
    chosen = random.permutation(np.minimum(chosen, len(x) - 1))
    x, value = x[chosen], value[chosen]
    d, roots = x.shape[1], np.linalg.cholesky(snapshot["density_covariances"])
    for _ in range(SWEEPS):
        # The component that scales a step is chosen independently of the position, so that proposals are symmetric.
        root = roots[random.integers(len(roots), size=n)]
        tried = x + 2.38 / np.sqrt(d) * np.einsum("nij,nj->ni", root, random.standard_normal(x.shape))
        tried_value = np.maximum(density(tried), 0.0)
        accepted = random.uniform(size=n) * value < tried_value
        x[accepted], value[accepted] = tried[accepted], tried_value[accepted]
    return x
