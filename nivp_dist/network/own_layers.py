"""The parameters of a user's module as one flat vector theta, and its Jacobian in the form of that of affine layers.

A `flax.linen.Dense` that is called once, with inputs (n, k) of the n samples, is an affine layer: the gradient of an
output by its weights is an outer product, and products with the Jacobian cost two matrix products. Such layers are
found by tracing the module, not by their names.

All other parameters (of layers that several particles share, of convolutions, of the module itself) have a stored
linearisation: the derivatives of the outputs by the q parameters of a submodule are computed once for given theta and
points, by reverse mode at each point. As a layer with one row, whose input is 1, and q columns they are a special case
of a layer's factors. So solvers need not tell the two apart; a product costs the same number of operations for each
parameter, and more memory: n m q numbers in place of n (rows + m columns).
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.core import Tracer

from nivp_dist.errors import InputError
from nivp_dist.network import frames
from nivp_dist.network.affine_layers import AffineLayers, Layer, Path, flattened
from nivp_dist.network.field import TRUNK, Affine

_CLASSES = (Affine, nn.Dense)  # of affine layers; what derives from them may compute anything
# What flax keeps beside parameters while a module is initialised, and what ``Affine`` exposes.
_KEPT = {"params", "intermediates", "perturbations"}
# Two numbers of samples with which a module is traced: no layer has inputs of both lengths by chance.
_SAMPLES = (7, 11)


class OwnLayers(AffineLayers):
    """As ``AffineLayers``, for a module with any parameters; its head is the layer whose output it returns.

    Attributes:
        affine: the paths of the affine layers, which come first in ``layers``. The others are stored linearisations.

    Raises InputError if the module has no parameters, or variables that are none.
    """

    def __init__(self, module: nn.Module, dimension: int, outputs: int, dtype):
        self._head: Path | None = None
        super().__init__(module, dimension, outputs, dtype)
        self.heads = tuple(i for i, layer in enumerate(self.layers) if layer.path == self._head)

    def _layers(self) -> list[Layer]:
        variables = jax.eval_shape(lambda: self.module.init(jax.random.key(0), self._points(1)))
        if others := sorted(set(variables) - _KEPT):
            raise InputError(
                f"network.class: its module has variables of the kind {others[0]}, and theta holds parameters "
                "(self.param) alone: leave out what keeps a state"
            )
        own = {path: leaf.shape for path, leaf in flattened(variables.get("params", {})).items()}
        if not own:
            raise InputError("network.class: its module has no parameters that could follow the solution")
        self.shapes = {path: own[path] for path in sorted(own)}
        self.affine = self._affine_layers()
        submodules = [*self.affine, *sorted({path[:-1] for path in own} - set(self.affine))]
        # Affine layers come first, and in them the rows of W: the kernel before the bias.
        self.shapes = {leaf: own[leaf] for path in submodules for leaf in self._leaves_of(path)}
        layers, start = [], 0
        for path in submodules:
            shapes = [own[leaf] for leaf in self._leaves_of(path)]
            numbers = sum(map(math.prod, shapes))
            rows = numbers // shapes[0][1] if path in self.affine else 1
            layers.append(Layer(path, start, rows, numbers // rows, (0, self.outputs)))
            start = layers[-1].stop
        return layers

    def linearise(self, theta, x):
        leaves = self.leaves(theta)
        # Zeros made from x, not from a shape: under shard_map they vary over the mesh as x does.
        widths = {layer.path: layer.columns for layer in self.layers if layer.path in self.affine}
        zeros = {path: jnp.zeros((len(x), width), self.dtype) + 0 * x[:, :1] for path, width in widths.items()}
        field, pullback, recorded = jax.vjp(lambda zeros: self._apply(leaves, x, zeros), zeros, has_aux=True)
        by_output = [pullback(jnp.zeros_like(field).at[:, k].set(1))[0] for k in range(self.outputs)]
        stored = self._stored(leaves, x)
        inputs, cotangents = [], []
        for layer in self.layers:
            if layer.path in self.affine:
                a = recorded[layer.path]
                inputs.append(frames.affine(a) if layer.rows > a.shape[1] else a)
                cotangents.append(jnp.stack([by_output[k][layer.path] for k in range(self.outputs)], axis=1))
            else:
                inputs.append(1 + 0 * x[:, :1])
                cotangents.append(jnp.concatenate([stored[leaf] for leaf in self._leaves_of(layer.path)], axis=-1))
        return field, inputs, cotangents

    def _stored(self, leaves, x) -> dict[Path, jax.Array]:
        """The derivatives of the outputs by the parameters that are in no affine layer: (n, m, q) for each leaf."""
        others = {path: leaf for path, leaf in leaves.items() if path[:-1] not in self.affine}
        if not others:
            return {}
        # Derivatives by replicated parameters would be summed over the devices: these are each device's own.
        others = {path: leaf + 0 * x[0, 0] for path, leaf in others.items()}

        def at(others, point):
            params = traverse_util.unflatten_dict(leaves | others)
            field: Any = self.module.apply({"params": params}, point[None])
            return field[0]

        rows = jax.vmap(jax.jacrev(at), (None, 0))(others, x)
        return {path: row.reshape(len(x), self.outputs, -1) for path, row in rows.items()}

    def _leaves_of(self, path: Path) -> list[Path]:
        """The paths of a submodule's own parameters, in the order of theta."""
        own = sorted(leaf for leaf in self.shapes if leaf[:-1] == path)
        return own[::-1] if path in self.affine else own

    # Tracing --------------------------------------------------------------------------------------

    def _affine_layers(self) -> list[Path]:
        """The paths of the layers that are called once, with an input (n, k), and with all of whose parameters the
        output is affine."""
        calls = [self._calls(samples) for samples in _SAMPLES]

        def is_affine(path: Path) -> bool:
            inputs = [each.get(path) for each in calls]
            once = all(shapes is not None and len(shapes) == 1 and len(shapes[0]) == 2 for shapes in inputs)
            return once and [shapes[0][0] for shapes in inputs if shapes] == list(_SAMPLES)

        return sorted(path for path in calls[0] if is_affine(path) and self._is_an_array_outside(path))

    def _calls(self, samples: int) -> dict[Path, list[tuple[int, ...]]]:
        """The shapes of the inputs of every call of a layer, by its path."""
        calls: dict[Path, list] = {}
        results: dict[Path, Any] = {}

        def interceptor(next_function, arguments, keywords, context):
            result = next_function(*arguments, **keywords)
            module, path = context.module, context.module.path
            if context.method_name == "__call__" and type(module) in _CLASSES:
                calls.setdefault(path, []).append(_only(arguments, keywords).shape)
                results[path] = result
            elif context.method_name == "__call__" and path == (TRUNK,):
                self._head = next((path for path, value in results.items() if value is result), None)
            return result

        def apply(leaves, x):
            with nn.intercept_methods(interceptor):
                return self.module.apply({"params": traverse_util.unflatten_dict(leaves)}, x)

        jax.eval_shape(apply, self._leaf_shapes(), self._points(samples))
        return calls

    def _is_an_array_outside(self, path: Path) -> bool:
        """Whether the input of a layer is an array of the module itself, and not of a loop, a jax.vmap or a
        rematerialised part in it, inside of which it means something else."""
        points = self._points(_SAMPLES[0])
        kernel = next(shape for leaf, shape in self.shapes.items() if leaf in (path + ("weight",), path + ("kernel",)))
        zeros = {path: jnp.zeros((len(points), kernel[-1]), self.dtype)}
        try:
            traced = jax.make_jaxpr(lambda leaves, x: self._apply(leaves, x, zeros)[1])(self._leaf_shapes(), points)
        except (jax.errors.UnexpectedTracerError, TypeError, ValueError):
            return False
        inside = any(isinstance(constant, Tracer) for constant in traced.consts)
        return len(kernel) == 2 and not inside

    def _apply(self, leaves, x, perturbations: dict[Path, jax.Array]):
        """The field, with perturbations (n, columns) of the outputs of some layers, and the inputs of these."""
        inputs: dict[Path, jax.Array] = {}

        def interceptor(next_function, arguments, keywords, context):
            result, path = next_function(*arguments, **keywords), context.module.path
            if context.method_name != "__call__" or path not in perturbations:
                return result
            inputs[path] = _only(arguments, keywords)
            return result + perturbations[path]

        with nn.intercept_methods(interceptor):
            field: Any = self.module.apply({"params": traverse_util.unflatten_dict(leaves)}, x)
        return field, inputs

    def _points(self, samples: int):
        return jnp.zeros((samples, self.dimension), self.dtype)

    def _leaf_shapes(self):
        return {path: jax.ShapeDtypeStruct(shape, self.dtype) for path, shape in self.shapes.items()}


def _only(arguments: tuple, keywords: dict):
    """The only argument of a call, by place or by name."""
    return (*arguments, *keywords.values())[0]
