"""A network of the user's own, or a ready-made one, in place of embedding and MLP: modules x (n, d) -> (n, outputs)."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nivp_dist.errors import InputError
from nivp_dist.network.examples import FourierResNet, Particles, Separable
from nivp_dist.problems.domains import Domain
from nivp_dist.problems.loading import first_line, place_of
from nivp_dist.problems.user_classes import file_of
from nivp_dist.problems.user_networks import KEY, fields, find
from nivp_dist.settings.model import NetworkSettings

SHIPPED: dict[str, type[nn.Module]] = {cls.__name__: cls for cls in (FourierResNet, Particles, Separable)}
SAMPLES = (3, 1)  # with which shapes are checked: a run evaluates it at several points, and at one


@dataclasses.dataclass(frozen=True)
class OwnNetwork:
    """What makes modules of a class.

    Attributes:
        parameters: name and value. domain, even: of the problem, for a class that has fields of these names; along the
            axes `even` the network has to be even.
    """

    cls: type[nn.Module]
    parameters: tuple[tuple[str, Any], ...]
    source: str
    domain: Domain
    even: tuple[int, ...]

    def module(self, outputs: int, name: str | None = None) -> nn.Module:
        """A module x (n, d) -> (n, outputs), of coordinates (x - centre) / scale."""
        known, told = fields(self.cls), {"outputs": outputs, "domain": self.domain, "even": self.even}
        return self.cls(**{key: told[key] for key in told if key in known}, **dict(self.parameters), name=name)

    def check(self, outputs: int, dtype) -> None:
        """Raises InputError, one line, unless a module can be made and gives one array (n, outputs) of reals."""
        for samples in SAMPLES:
            self._check(outputs, jax.ShapeDtypeStruct((samples, self.domain.dimension), dtype))

    def _check(self, outputs: int, points: jax.ShapeDtypeStruct) -> None:
        try:
            module = self.module(outputs)
            variables = jax.eval_shape(module.init, jax.random.key(0), points)
            # Without keys, because a run draws no random numbers in the network. Other variables are refused later.
            apply = lambda variables, x: module.apply(variables, x, mutable=list(variables))[0]  # noqa: E731
            result = jax.eval_shape(apply, variables, points)
        except Exception as error:  # noqa: BLE001  code of users can raise anything
            place = place_of(error, file_of(self.cls)) or self.source
            raise InputError(f"{place}: class {self.cls.__name__}: {first_line(error)}") from None
        for leaf in jax.tree.leaves(variables.get("params", {})):
            if not (leaf.size and jnp.issubdtype(leaf.dtype, jnp.floating)):
                self.fail(f"has a parameter of {leaf.dtype} and shape {leaf.shape}: parameters are real, and not empty")
        array, expected = isinstance(result, jax.ShapeDtypeStruct), (points.shape[0], outputs)
        if not (array and result.shape == expected and jnp.issubdtype(result.dtype, jnp.floating)):
            got = f"{result.dtype} {result.shape}" if array else f"a {type(result).__name__}"
            self.fail(
                f"must return one real array (n, outputs), here {expected}, for x of {points.shape}; it returns {got}"
            )

    def fail(self, text: str) -> None:
        """Raises InputError about this class."""
        where = "" if self.source == f"network {self.cls.__name__}" else f"{self.source}: "
        raise InputError(f"{where}{KEY} = '{self.cls.__name__}' {text}")


def load(settings: NetworkSettings, domain: Domain, even: tuple[int, ...]) -> OwnNetwork | None:
    """The network of the class that the settings name, with its parameters validated; None without network.class.

    A name is that of a class in network.file, or without a file one of SHIPPED. Raises InputError as
    ``user_networks.find``.
    """
    if settings.class_ is None:
        return None
    cls, values, source = find(settings, SHIPPED)
    # flax hashes modules, and lists have no hash.
    parameters = tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in values.items())
    return OwnNetwork(cls, parameters, source, domain, even)
