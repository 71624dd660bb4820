"""Integrals of the solution on which an equation depends: mean fields, total masses, fields of charges.

A problem declares them as ``integrals`` (see ``problems.base.Problem``), and its rhs takes their values as a fourth
argument. In a run they are computed once for a velocity, by quadrature over the collocation points of all devices
(``galerkin.discretisation``) or over nodes of the problem's own. Before a run, and in fits, this module computes them
for u0 or another known function.

The arguments of rhs are passed on as a tuple: () for a problem without integrals, (values,) for one with them.
"""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.problems.base import Problem

SAMPLES = 4096  # of the domain, where a problem has no nodes: integrals of smooth functions are right to a few percent


def further_arguments(problem: Problem, u: Callable, t) -> tuple:
    """What rhs takes beside u, x and t, for a function u of one point: () or (values (k,),).

    The integrals are taken over the problem's own nodes, or, roughly, over SAMPLES points of the domain.
    """
    if not callable(problem.integrals):
        return ()
    return (integrals_of(problem, u, t, nodes(problem) or samples(problem)),)


def integrals_of(problem: Problem, u: Callable, t, rule: tuple[np.ndarray, np.ndarray]):
    """The integrals (k,) of a function u of one point, by nodes or points (n, d) and weights (n,)."""
    x, weights = map(jnp.asarray, rule)
    return weights @ jax.vmap(lambda point: problem.integrals(u, point, t))(x)


def nodes(problem: Problem) -> tuple[np.ndarray, np.ndarray] | None:
    """The nodes (q, d) and weights (q,) of the problem's own quadrature, in float64; None if it has none."""
    if not callable(problem.quadrature):
        return None
    x, weights = cast(Any, problem.quadrature())
    return np.asarray(x, np.float64), np.asarray(weights, np.float64)


def samples(problem: Problem, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """SAMPLES random points (n, d) of the domain and weights (n,) for integrals over it."""
    domain = problem.domain
    x = domain.sample(np.random.default_rng(seed), SAMPLES)
    real = list(domain.real_axes)
    centre, scale = domain.centre[real], domain.scale[real]
    log_density = -0.5 * np.sum(((x[:, real] - centre) / scale) ** 2 + np.log(2 * np.pi * scale**2), axis=1)
    return x, domain.bounded_volume * np.exp(-log_density) / SAMPLES
