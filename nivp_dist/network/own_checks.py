"""Whether a network of the user's own keeps what a run relies on, by its values at a few random points.

The built-in network is periodic along periodic axes, has the slopes that Neumann and Robin axes prescribe, and is even
along even axes by its embedding; a network of the user's own is so if it is made so. It is checked before anything
large is compiled.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.network.network import Network, restrict
from nivp_dist.problems.axes import Axis
from nivp_dist.problems.domains import Domain

POINTS = 4  # of each check
NOISE = 0.1  # added to random parameters: biases are zero at first, which hides mistakes
FEATURES = "make it a function of boundary_features(x, domain) along that axis (nivp_dist.network.features)"


class _Values(NamedTuple):
    """What is known of the network at points (n, d): values (n, m), slopes (n, m) along given directions, and values
    at each point alone; derivatives (n, m) along a direction of theta, and the same by the factors of the layers."""

    values: Any
    slopes: Any
    alone: Any
    along: Any
    by_factors: Any


def check(network: Network) -> None:
    """Raises InputError, one line that says what to change, if the user's network of a run is not what it should be."""
    own, domain, random = network.own, network.domain, np.random.default_rng(0)
    if own is None:
        return
    ends = tuple(i for i, axis in enumerate(domain.axes) if axis.kind == "periodic" or axis.mirrors)
    even = tuple(axis for axis, _ in network.parities)
    pairs = [_ends(domain, axis, random) for axis in ends] + [_mirrored(domain, axis, random) for axis in even]
    x = np.concatenate([domain.sample(random, POINTS), *(points for pair in pairs for points in pair)])
    directions = np.zeros_like(x)
    for number, axis in enumerate((*ends, *even)):
        directions[(1 + 2 * number) * POINTS : (3 + 2 * number) * POINTS, axis] = domain.scale[axis]
    found = _evaluated(network, x, directions, random)
    finite = np.all([np.isfinite(part).all(axis=1) for part in found], axis=0)
    if not finite.all():
        own.fail(f"or one of its derivatives is not finite at x = {x[~finite][0]}, with random parameters")
    size, slope = np.abs(found.values).max(), max(np.abs(found.slopes).max(), np.abs(found.values).max())
    tolerance = np.sqrt(np.finfo(network.dtype).eps)
    near = lambda a, b, size: bool(np.abs(a - b).max() <= tolerance * size)  # noqa: E731
    if not near(found.alone, found.values, size):
        own.fail("mixes points: what it returns for one point of a batch depends on the others")
    if not near(found.by_factors, found.along, np.abs(found.along).max()):
        own.fail(
            "uses weights of an nn.Dense elsewhere than in the call of that layer, at which their derivatives are "
            "taken (make them parameters of the module itself, by self.param), or computes in a lower precision than "
            "network.dtype"
        )
    of_pairs = lambda part: part[POINTS:].reshape(-1, 2, POINTS, network.outputs)  # noqa: E731
    values, slopes = of_pairs(found.values), of_pairs(found.slopes)
    for number, axis in enumerate(ends):
        where = f"axis {axis}, which is {domain.axes[axis]}: {FEATURES}"
        if domain.axes[axis].mirrors:
            unsatisfied = _unsatisfied(network, domain.axes[axis], values[number], slopes[number])
            if not near(unsatisfied, 0.0, slope):
                own.fail(f"has another slope at the ends of {where}")
        elif not all(
            near(part[number][0], part[number][1], scale) for part, scale in ((values, size), (slopes, slope))
        ):
            own.fail(f"is not periodic along {where}")
    for (axis, signs), (plain, mirrored) in zip(network.parities, values[len(ends) :]):
        if not near(plain, np.array(signs) * mirrored, size):
            own.fail(
                f"is not even along axis {axis}, along which the problem says that u is: set network.symmetry = false, "
                "or make it even (boundary_features has an argument for that)"
            )


def _unsatisfied(network: Network, axis: Axis, values: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """du/dn + b u, relative to b where that is large, at the ends with a prescribed slope, in units of the network.

    values, slopes: (2, n, m), of the field at both ends; slopes are along the axis.
    """
    conditions = zip((-1, 1), axis.conditions, 1.0 + 0 * values if network.log_density else values, slopes)
    return np.concatenate(
        [
            (sign * slope + b * axis.scale * value) / (1 + abs(b) * axis.scale)
            for sign, b, value, slope in conditions
            if b is not None and np.isfinite(b)
        ]
    )


def _ends(domain: Domain, axis: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points at both ends of an axis that agree in the other coordinates."""
    low = domain.sample(random, POINTS)
    high = low.copy()
    low[:, axis], high[:, axis] = domain.lower[axis], domain.upper[axis]
    return low, high


def _mirrored(domain: Domain, axis: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points, and their mirror images about the middle of an axis."""
    x = domain.sample(random, POINTS)
    mirrored = x.copy()
    mirrored[:, axis] = 2 * domain.centre[axis] - x[:, axis]
    return x, mirrored


def _evaluated(network: Network, x, directions, random: np.random.Generator) -> _Values:
    """The network with random parameters at points x (n, d); slopes are along directions (n, d)."""
    theta, v = _random_parameters(network, random), random.standard_normal(network.size)

    def evaluated(theta, x):
        values, slopes = jax.jvp(lambda x: network.field(theta, x), (x,), (directions,))
        alone = jax.vmap(lambda point: network.field(theta, point[None])[0])(x)
        along = jax.jvp(lambda theta: network.field(theta, x), (theta,), (v,))[1]
        by_factors = jnp.zeros_like(values)
        for layer, (a, d) in zip(network.layers, network.factors(theta, x)[1]):
            matrix = v[layer.start : layer.stop].reshape(layer.rows, layer.columns)
            by_factors += jnp.einsum("nc,nmc->nm", a @ matrix, d)
        return _Values(values, slopes, alone, along, by_factors)

    return _Values(*(np.asarray(part, np.float64) for part in jax.jit(evaluated)(theta, x)))


def _random_parameters(network: Network, random: np.random.Generator) -> np.ndarray:
    theta = np.asarray(network.initialise(jax.random.key(0)))
    return theta + NOISE * random.standard_normal(theta.shape)


def require_first_outputs(wide: Network, narrow: Network) -> None:
    """Raises InputError unless the wide network, with more outputs, contains the narrow one, see ``restrict``."""
    own = wide.own
    if own is None:
        return
    ours, theirs = wide.parameters.shapes, narrow.parameters.shapes
    larger = lambda one, other: len(one) == len(other) and all(a >= b for a, b in zip(one, other))  # noqa: E731
    alike = ours.keys() == theirs.keys() and all(larger(ours[path], theirs[path]) for path in theirs)
    if alike:
        random = np.random.default_rng(0)
        theta, x = _random_parameters(wide, random), wide.domain.sample(random, POINTS)
        first = np.asarray(jax.jit(wide.field)(theta, x))[:, : narrow.outputs]
        alone = np.asarray(jax.jit(narrow.field)(restrict(theta, wide, narrow), x))
        alike = np.abs(first - alone).max() <= np.sqrt(np.finfo(wide.dtype).eps) * np.abs(first).max()
    if not alike:
        own.fail(
            f"with {wide.outputs} outputs is not the one with {narrow.outputs} and others beside it, so that it cannot "
            "be fitted together with the time derivative: set fit.time_derivative_targets = false"
        )
