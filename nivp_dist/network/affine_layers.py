"""The parameters of a module of ``Affine`` layers as one flat vector theta, and the factors of its Jacobian.

For an affine layer the gradient of output k at sample i is the outer product a_i delta_ik^T of the layer's input and of
the cotangent of its pre-activation.
"""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

Path = tuple[str, ...]


class Layer(NamedTuple):
    """One affine layer in the flat theta: W = theta[start : start + rows * columns], row-major.

    Attributes:
        path: its name in the flax module. outputs: the range (first, last + 1) of network outputs that it feeds.
    """

    path: Path
    start: int
    rows: int
    columns: int
    outputs: tuple[int, int]

    @property
    def stop(self) -> int:
        return self.start + self.rows * self.columns


class AffineLayers:
    """theta (p,) of a module x (n, d) -> (n, m) all of whose parameters are in ``Affine`` layers.

    Attributes:
        shapes: of the leaves of the module's parameters, by path and in the order of theta.
        layers: in the order of theta. heads: the numbers of the last ones, in which the outputs are affine.
    """

    shapes: dict[Path, tuple[int, ...]]

    def __init__(self, module: nn.Module, dimension: int, outputs: int, dtype):
        self.module, self.dimension, self.outputs, self.dtype = module, dimension, outputs, dtype
        self.layers = self._layers()
        self.heads = tuple(i for i, layer in enumerate(self.layers) if layer.path[-1] == "head")

    def _layers(self) -> list[Layer]:
        """The layers; sets ``shapes`` too, those of all leaves of the parameters in the order of theta, by path."""
        point = jnp.zeros((1, self.dimension), self.dtype)
        leaves = flattened(jax.eval_shape(lambda: self.module.init(jax.random.key(0), point))["params"])
        self.shapes, layers, start = {path: leaves[path].shape for path in sorted(leaves)}, [], 0
        for path, (rows, columns) in self.shapes.items():
            trunk = path[0].removeprefix("output_")
            feeds = (int(trunk), int(trunk) + 1) if trunk != path[0] else (0, self.outputs)
            layers.append(Layer(path[:-1], start, rows, columns, feeds))
            start = layers[-1].stop
        return layers

    def random(self, key):
        """A random theta (p,) float64."""
        params = self.module.init(key, jnp.zeros((1, self.dimension), self.dtype))["params"]
        return self.flat(flattened(params)).astype(jnp.float64)

    def flat(self, leaves: dict[Path, jax.Array]):
        """theta (p,) of the leaves of the module's parameters, by path."""
        return jnp.concatenate([leaves[path].reshape(-1) for path in self.shapes])

    def leaves(self, theta) -> dict[Path, jax.Array]:
        """The inverse of ``flat``."""
        found, start = {}, 0
        for path, shape in self.shapes.items():
            stop = start + math.prod(shape)
            found[path], start = theta[start:stop].reshape(shape), stop
        return found

    def linearise(self, theta, x):
        """The field and its derivatives by theta (p,) at x (n, d), both of the module's dtype.

        Returns:
            field (n, m); for each layer inputs A (n, rows); and for each layer cotangents D (n, outputs of the layer,
            columns). d field_k(x_i) / d W is the outer product of A_i and D_ik.
        """
        params = traverse_util.unflatten_dict(self.leaves(theta))
        # Zeros made from x, not from a shape: under shard_map they vary over the mesh as x does.
        zeros = {
            layer.path + ("output",): jnp.zeros((len(x), layer.columns), self.dtype) + 0 * x[:, :1]
            for layer in self.layers
        }

        def apply(perturbations):
            variables = {"params": params, "perturbations": traverse_util.unflatten_dict(perturbations)}
            return self.module.apply(variables, x, mutable=["intermediates"])

        field, pullback, state = jax.vjp(apply, zeros, has_aux=True)
        by_output = [pullback(jnp.zeros_like(field).at[:, k].set(1))[0] for k in range(self.outputs)]
        recorded = flattened(state["intermediates"])
        inputs = [recorded[layer.path + ("input",)][0] for layer in self.layers]
        cotangents = [
            jnp.stack([by_output[k][layer.path + ("output",)] for k in range(*layer.outputs)], axis=1)
            for layer in self.layers
        ]
        return field, inputs, cotangents


def flattened(variables) -> dict[Path, Any]:
    """Flax's nested dictionary of arrays as one dictionary, by paths."""
    flat: Any = traverse_util.flatten_dict(variables)
    return flat
