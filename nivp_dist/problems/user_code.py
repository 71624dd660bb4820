"""Calls of the functions that a user's problem defines, whose mistakes become one line each."""

import inspect
from collections.abc import Callable

import jax
import numpy as np

from nivp_dist.errors import InputError
from nivp_dist.problems.base import Problem
from nivp_dist.problems.loading import first_line, place_of


class UserCode:
    """Calls the user's functions and raises InputError, with a message of one line, for what is wrong with them.

    t: the time at which they are called.
    """

    def __init__(self, problem: Problem, source: str, t: float):
        self.name, self.source, self.t = type(problem).__name__, source, t
        try:
            self.file = inspect.getsourcefile(type(problem))
        except TypeError:  # a class typed into a prompt has no file
            self.file = None

    def fail(self, text: str):
        raise InputError(f"{self.source}: {self.name}.{text}")

    def call(self, what: str, function: Callable, *arguments):
        try:
            return function(*arguments)
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001  code of users can raise anything
            hint = "; write it with jax.numpy, without float(), if or numpy on x, t or u" if _is_tracing(error) else ""
            place = place_of(error, self.file) or self.source
            raise InputError(f"{place}: {self.name}.{what}: {first_line(error)}{hint}") from None

    def shape(self, what: str, expected: tuple, function: Callable, *arguments):
        result = self.call(what, jax.eval_shape, function, *arguments)
        if not isinstance(result, jax.ShapeDtypeStruct):
            self.fail(f"{what} must return one array, not a {type(result).__name__}; stack its parts with jnp.stack")
        if result.shape != expected:
            outputs = expected[0] if expected else 1
            self.fail(f"{what} must have shape {expected} (outputs = {outputs}), got {result.shape}")
        if not (np.issubdtype(result.dtype, np.floating) or np.issubdtype(result.dtype, np.integer)):
            self.fail(f"{what} must be real, got {result.dtype}")

    def finite(self, what: str, points: np.ndarray, values) -> None:
        bad = ~np.isfinite(np.asarray(values, np.float64).reshape(len(points), -1)).all(axis=1)
        if bad.any():
            where = shown(points[bad][0])
            self.fail(f"{what} is not finite at {int(bad.sum())} of {len(points)} points, such as x = {where}")


def shown(x: np.ndarray) -> str:
    """A point (d,) as text."""
    return np.array2string(x, precision=3, separator=", ", threshold=6)


def _is_tracing(error: Exception) -> bool:
    return isinstance(error, (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError))
