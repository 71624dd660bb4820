"""The solution at a stored time of a run, as a function of points."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from nivp_dist.errors import InputError
from nivp_dist.network.network import Network

CHUNK = 1 << 16  # points evaluated at once, which bounds the memory


@functools.lru_cache(maxsize=8)
def _program(network: Network):
    """One program for all times of a run: (theta (p,), t, x (n, d)) -> u (n, m)."""
    return jax.jit(network.solution_values)


class Solution:
    """The solution at a time t, of a network with parameters theta (p,): points (n, d) -> (n, m) float64, m outputs.

    One point (d,) gives a scalar if m = 1, else (m,). Both work under jax too (jit, vmap, grad). The programs are of
    this process alone. Raises ValueError for points of another shape.

    Attributes:
        t: the time.
    """

    def __init__(self, network: Network, theta: np.ndarray, t: float):
        self._network, self._theta, self.t = network, theta, t
        self._compiled = _program(network)

    def __call__(self, points) -> Any:
        if isinstance(points, Tracer):
            return self._traced(points)
        x = np.asarray(points, np.float64)
        if x.shape == (self._network.dimension,):
            return self._shaped(self(x[None])[0])
        self._require_points(x)
        parts = [self._at_some(x[i : i + CHUNK]) for i in range(0, len(x), CHUNK)]
        return np.concatenate(parts) if parts else np.zeros((0, self._network.outputs))

    def _at_some(self, x: np.ndarray) -> np.ndarray:
        """At some points (n, d), n <= CHUNK: (n, m). The program is compiled for numbers of points that are powers of
        two, because every other number would ask for one more."""
        filled = np.concatenate([x, np.repeat(x[-1:], (1 << (len(x) - 1).bit_length()) - len(x), axis=0)])
        return np.asarray(self._compiled(self._theta, self.t, filled), np.float64)[: len(x)]

    def _traced(self, x):
        theta = jnp.asarray(self._theta)
        if x.shape == (self._network.dimension,):
            return self._shaped(self._network.solution_values(theta, self.t, x[None])[0]).astype(x.dtype)
        self._require_points(x)
        return self._network.solution_values(theta, self.t, x).astype(x.dtype)

    def _shaped(self, values):
        """Values (m,) at one point as a right-hand side has them: a scalar if m = 1."""
        return values[0] if self._network.outputs == 1 else values

    def _require_points(self, x) -> None:
        if x.ndim != 2 or x.shape[1] != self._network.dimension:
            raise ValueError(f"points must have the shape (n, {self._network.dimension}), got {x.shape}")


class StoredSolution(Solution):
    """The solution of a run at a stored time t. It can be the initial condition of another problem, as an attribute of
    its class: ``initial = run.solution(t)``.

    Attributes:
        files: the absolute paths of the files that decide it. A run whose initial condition it is copies
            them, or compares them at a resume, like the ``data_files`` of its problem. record: config.toml of its run,
            which a resume of that run may rewrite.

    Raises InputError, when it is made, for parameters of another network.
    """

    def __init__(self, network: Network, theta: np.ndarray, t: float, files: list[Path], record: Path):
        if theta.shape != (network.size,):
            raise InputError(
                f"{files[0]}: the network stored at t = {t:g} has {theta.size} parameters and [network] says "
                f"{network.size}: it was written by another version of nivp_dist"
            )
        self.files, self.record = tuple(map(str, files)), str(record)
        super().__init__(network, theta, t)

    def __repr__(self) -> str:
        return f"<solution at t = {self.t:g} in {self.files[0]}>"
