"""Selections of points among candidates, by the residual or by the solution: functions to be compiled.

Candidates and selections are sharded over a mesh, N / k and n / k on each of its k devices. A selection is padded as
``points.pad`` does.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.mesh import AXIS, is_ordered, multiple_of_points
from nivp_dist.points.points import Points


class _Chosen(NamedTuple):
    """What a resampling has chosen.

    Attributes:
        points: the chosen candidates, sharded. probability: (n,), with which each was chosen.
        is_drawn: (n,), 0 for padding, else 1.
    """

    points: Points
    probability: jax.Array
    is_drawn: jax.Array


def select_by_residual(key, candidates: Points, squares, n: int, mesh: Mesh) -> Points:
    """n of N candidates, with a probability that is half their weight and half their share of the residual's size.

    With probabilities in proportion to |residual|, and not to its square, the sums of a least-squares fit have the
    least variance (Kahn and Marshall 1953), and no few points take all of them. Systematic resampling. Weights and
    measure are divided by the probability, so that sums over the selection estimate the same integrals as sums over the
    candidates; the half by weight bounds the quotients.

    Args:
        squares: (N,), the squared residual at the candidates.
    """
    residual_share = candidates.weights * jnp.sqrt(squares)
    total = jnp.sum(residual_share)
    half = jnp.where(total > 0, residual_share / jnp.where(total > 0, total, 1.0), candidates.weights)
    chosen = _resample(key, candidates, 0.5 * candidates.weights + 0.5 * half, n, mesh)
    return Points(chosen.points.x, _normalised_weights(chosen), _measure(chosen, n))


def select_by_solution(
    key, candidates: Points, log_values, n: int, mesh: Mesh, *, power: float, share: float, log_density: bool
) -> Points:
    """n of N candidates: a share with equal probabilities, the others as if drawn from |u|^power.

    Sampling-importance resampling (Rubin 1987). Gaussians fitted to u reach beyond a density that decays faster than
    they do. Out there log u and its time derivative are largest, and points there would dominate the velocity.

    Args:
        log_values: log |u| at the candidates, (N,).
        log_density: True if the field is log u. All weights are then equal, because its norm follows the points;
            else they keep the norm of the candidates.
    """
    drawn = candidates.measure > 0  # and not padding
    logs = jnp.where(drawn, power * log_values + jnp.log(candidates.measure), -jnp.inf)
    probability = (1 - share) * jax.nn.softmax(logs) + share * drawn / jnp.sum(drawn)
    chosen = _resample(key, candidates, probability, n, mesh)
    weights = chosen.is_drawn / n if log_density else _normalised_weights(chosen)
    return Points(chosen.points.x, weights, _measure(chosen, n))


def select_from_both(key, part_key, candidates: Points, log_values, n: int, mesh: Mesh, *, share: float):
    """n of N candidates: a share with equal probabilities, the others as if drawn from |u|.

    As ``select_by_solution`` with a power of one, and with the part that each point belongs to: a point in reach of
    both is assigned by chance, with the probabilities of the two parts there.

    Returns:
        The selection as ``Points`` of equal weights, and whether a point is of the part drawn from |u|: (n,).
    """
    drawn = candidates.measure > 0  # and not padding
    by_values = jax.nn.softmax(jnp.where(drawn, log_values + jnp.log(candidates.measure), -jnp.inf))
    equal = share / jnp.sum(drawn)
    chosen = _resample(key, candidates, (1 - share) * by_values + equal * drawn, n, mesh)
    chance = jnp.pad(jax.random.uniform(part_key, (n,)), (0, -n % multiple_of_points(mesh)))
    points = Points(chosen.points.x, chosen.is_drawn / n, _measure(chosen, n))
    return points, chance * chosen.probability > equal


def _normalised_weights(chosen: _Chosen):
    weights = chosen.is_drawn * chosen.points.weights / chosen.probability
    return weights / jnp.sum(weights)


def _measure(chosen: _Chosen, n: int):
    return chosen.is_drawn * chosen.points.measure / (n * chosen.probability)


def _resample(key, candidates: Points, probability, n: int, mesh: Mesh) -> _Chosen:
    """n of the candidates by systematic resampling, with probabilities (N,).

    Every device sums up the probabilities of its own candidates, and chooses where the positions of the resampling fall
    into its part of the whole; the others add zeros. Sent are k totals and the chosen points, which every device holds
    for a moment. XLA would compute a cumulative sum over a sharded array in windows of the whole length,
    which are N^2 / k operations on each device. On an ordered mesh every device has all candidates
    (``mesh.whole_program``), and chooses among all of them.
    """
    shift, multiple = jax.random.uniform(key), multiple_of_points(mesh)
    if is_ordered(mesh):
        cumulative = jnp.cumsum(probability)
        index = _index(cumulative, _positions(shift, cumulative[-1], n, multiple))
        chosen, p = jax.tree.map(lambda leaf: leaf[index], (candidates, probability))
    else:
        choose = partial(_choose, n=n, devices=multiple)
        choose = jax.shard_map(choose, mesh=mesh, in_specs=(P(), P(AXIS), P(AXIS)), out_specs=P(AXIS))
        chosen, p = choose(shift, candidates, probability)
    return _Chosen(chosen, p, (jnp.arange(len(p)) < n).astype(p.dtype))


def _choose(shift, candidates: Points, probability, *, n: int, devices: int):
    """This device's part of the chosen candidates and of their probabilities, inside of ``shard_map``."""
    cumulative = jnp.cumsum(probability)
    ends = jnp.cumsum(jax.lax.all_gather(cumulative[-1], AXIS))
    device = jax.lax.axis_index(AXIS)
    start = jnp.where(device > 0, ends[device - 1], 0.0)
    cumulative = start + cumulative
    position = _positions(shift, ends[-1], n, devices)
    is_own = jnp.searchsorted(ends[:-1], position, side="right") == device
    index = _index(cumulative, position)

    def collect(leaf):
        taken = leaf[index]
        taken = jnp.where(is_own.reshape(-1, *[1] * (leaf.ndim - 1)), taken, jnp.zeros_like(taken))
        return jax.lax.psum_scatter(taken, AXIS, tiled=True)

    return jax.tree.map(collect, (candidates, probability))


def _positions(shift, total, n: int, multiple: int):
    """n evenly spread numbers in (0, total), padded to a multiple: padding repeats a point."""
    return jnp.pad((jnp.arange(n) + shift) / n * total, (0, -n % multiple), mode="edge")


def _index(cumulative, position):
    """Where the positions fall into cumulative sums of probabilities.

    Sums in another order round differently, and a position may come to lie a rounding behind the last sum.
    """
    return jnp.searchsorted(cumulative, jnp.minimum(position, jnp.nextafter(cumulative[-1], 0.0)), side="right")
