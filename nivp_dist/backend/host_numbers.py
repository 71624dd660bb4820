"""Several single numbers of a compiled program as one vector.

Each array that the host reads is a transfer of its own, for which it waits. A program whose numbers decide what the
host does next returns them packed, and the host reads them at once.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from nivp_dist.backend.mesh import to_host

Numbers = TypeVar("Numbers", bound=tuple)


def pack(numbers: Sequence[Any]) -> jax.Array:
    """The numbers, scalars of any types, as a vector (k,) float64, inside of a program."""
    return jnp.stack([jnp.asarray(number, jnp.float64) for number in numbers])


def packed(function: Callable) -> Callable:
    """The function, which returns single numbers, as one that returns them packed."""

    @functools.wraps(getattr(function, "func", function))  # the program is called after it
    def packing(*arguments):
        return pack(function(*arguments))

    return packing


def read(kind: type[Numbers], vector: jax.Array) -> Numbers:
    """The numbers of a packed vector (k,), which is replicated, as a NamedTuple of floats with k fields."""
    return kind(*to_host(vector).tolist())
