"""The network u(x; theta) as a function of one flat vector theta, and its exact per-layer Jacobian factors.

All parameters sit in affine layers, one matrix W of shape (fan_in + 1, fan_out) each, bias in the last
row. For such a layer the gradient of output k at sample i is the outer product a_i delta_ik^T of the
layer's input and of the cotangent of its pre-activation. ``Network.factors`` hands out both for all
samples; the Jacobian of the network is never needed in any other form (see ``galerkin.jacobian``).
"""

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from nivp_dist import backend  # noqa: F401
from nivp_dist.errors import InputError
from nivp_dist.network import frames
from nivp_dist.network.balance import output_scales
from nivp_dist.network.field import Field, coordinates, number_of_frequencies, wave_numbers
from nivp_dist.network.frames import Frame
from nivp_dist.settings.model import NetworkSettings


class Layer(NamedTuple):
    """One affine layer in the flat theta: W = theta[start : start + rows * columns], row-major."""

    path: tuple[str, ...]
    start: int
    rows: int
    columns: int
    outputs: tuple[int, int]  # the range of network outputs that it feeds

    @property
    def stop(self) -> int:
        return self.start + self.rows * self.columns


class Network:
    """A flax module behind functions of a flat parameter vector theta (p,).

    Attributes:
        size: p. dimension: d. outputs: m. layers: the affine layers in the order of theta.
        log_density: True if the field is q = log u, and u = exp(q).
        scales: (m,), otherwise the field is q_k = scales_k u_k, see ``balance``.
    """

    def __init__(self, settings: NetworkSettings, problem, outputs: int | None = None):
        self.domain = problem.domain
        self.dimension, self.outputs = self.domain.dimension, outputs or problem.outputs
        self.dtype = jnp.dtype(settings.dtype)
        form = settings.form
        if form == "auto":
            form = "log_density" if problem.density and not self.domain.bounded else "direct"
        self.form, self.log_density = form, form == "log_density"
        if self.log_density and (self.domain.bounded or problem.outputs != 1):
            raise InputError("network.form = 'log_density' needs a problem on the WholeSpace with one output")
        if settings.additive and not (form == "exponential" and self.domain.walls == "zero"):
            raise InputError(
                f"network.additive = {settings.additive} needs network.form = 'exponential' on a box with walls"
            )
        if settings.gaussians > 1 and not self.log_density:
            raise InputError(
                f"network.gaussians = {settings.gaussians} needs a field log u: network.form = 'log_density'"
            )
        if self.domain.walls == "periodic" and number_of_frequencies(settings, self.domain) == 0:
            raise InputError("network.frequencies = 0 leaves nothing to see on a periodic box: set at least 1")
        self.even = tuple(problem.even) if settings.symmetry and form == "direct" else ()
        self.module = Field(settings, self.domain, self.outputs, problem.outputs, form, self.even)
        point = jnp.zeros((1, self.dimension), self.dtype)
        shapes = jax.eval_shape(lambda: self.module.init(jax.random.key(0), point))["params"]
        self.layers, start = [], 0
        for path, leaf in sorted(traverse_util.flatten_dict(shapes).items()):
            net = path[0].removeprefix("output_")
            fed = (int(net), int(net) + 1) if net != path[0] else (0, self.outputs)
            self.layers.append(Layer(path[:-1], start, *leaf.shape, fed))
            start = self.layers[-1].stop
        self.size = start
        self.quadratics = [layer for layer in self.layers if layer.path[0].startswith("quadratic")]
        # Then layers whose inputs are coordinates, where no box holds the solution to its place.
        plain = not self.domain.bounded and number_of_frequencies(settings, self.domain) == 0
        self.framed = self.quadratics + [layer for layer in self.layers if plain and layer.path[-1] == "hidden_00"]
        self._initialise = jax.jit(self._draw)  # else dozens of small programs, compiled one by one
        self.scales = self._scales(settings, problem) if outputs is None else np.ones(outputs)

    def _scales(self, settings: NetworkSettings, problem) -> np.ndarray:
        if settings.output_scales == "auto":
            count = max(1, number_of_frequencies(settings, self.domain))
            return output_scales(problem, wave_numbers(count, self.domain.walls == "periodic")[-1])
        if len(settings.output_scales) != self.outputs:
            raise InputError(
                f"network.output_scales has {len(settings.output_scales)} entries for {self.outputs} outputs: "
                "give one each, or 'auto'"
            )
        return np.asarray(settings.output_scales, np.float64)

    def initialise(self, key):
        """A random theta (p,) float64."""
        return self._initialise(key)

    def _draw(self, key):
        params = self.module.init(key, jnp.zeros((1, self.dimension), self.dtype))["params"]
        flat = traverse_util.flatten_dict(params)
        return jnp.concatenate([flat[layer.path + ("weight",)].reshape(-1) for layer in self.layers]).astype(
            jnp.float64
        )

    def initialise_near(self, key, masses, means, covariances):
        """A random theta (p,) for a solution near a mixture of as many Gaussians as there are quadratic forms, K.

        For a field log u the forms are the logarithms of those Gaussians, whatever the scales of the coordinates:
        where u is narrow and off centre, monomials are too much alike for a fit to find it; and where its parts lie
        far from each other, which form is whose is not found by small corrections.

        Args:
            masses (K,), means (K, d), covariances (K, d, d).
        """
        theta = self.initialise(key)
        if not self.log_density:
            return theta
        scale, centre = jnp.asarray(self.domain.scale), jnp.asarray(self.domain.centre)
        rows, columns = np.triu_indices(self.dimension)
        for k, layer in enumerate(self.quadratics):
            mu, precision = (means[k] - centre) / scale, jnp.linalg.inv(covariances[k])
            precision = scale[:, None] * precision * scale
            linear, quadratic = precision @ mu, -jnp.where(rows == columns, 0.5, 1.0) * precision[rows, columns]
            constant = -0.5 * (mu @ linear + jnp.linalg.slogdet(2 * jnp.pi * covariances[k])[1]) + jnp.log(masses[k])
            form = jnp.concatenate([linear, quadratic, constant[None]])
            theta = theta.at[layer.start : layer.stop].set(form)
        return theta

    def frames(self, theta, x, weights, axis: str) -> tuple[Frame, ...]:
        """Those of the framed layers at theta, on points x (n, d) (see ``frames``).

        Where there are several quadratic forms, that of each is of the points that are its own, by its share of u.
        """
        if not self.framed:
            return ()
        xi = coordinates(self.domain, x)
        if not self.log_density:  # a change of the form counts with the square of u
            weights = weights * jnp.sum(self.field(theta, x).astype(jnp.float64) ** 2, axis=-1)
        whole = frames.fit(xi, weights, axis)
        if len(self.quadratics) <= 1:
            return tuple(whole for _ in self.framed)
        forms = [frames.affine(frames.monomials(xi)) @ theta[layer.start : layer.stop] for layer in self.quadratics]
        shares = dict(zip(self.quadratics, jax.nn.softmax(jnp.stack(forms), axis=0)))
        own = lambda layer: frames.fit(xi, weights * shares[layer], axis)  # noqa: E731
        return tuple(own(layer) if layer in shares else whole for layer in self.framed)

    def from_basis(self, theta, basis):
        """Parameters (p,) in a basis (None: they are so already) as those of the network."""
        if basis is None:
            return theta
        theta = theta * self._scales_of_parameters(basis)
        return self._moved(theta, basis.frames)

    def to_basis(self, theta, basis):
        """The inverse of ``from_basis``."""
        if basis is None:
            return theta
        inverse = basis.inverse()
        return self._moved(theta, inverse.frames) * self._scales_of_parameters(inverse)

    def _scales_of_parameters(self, basis):
        sizes = np.array([layer.stop - layer.start for layer in self.layers])
        return jnp.repeat(basis.scales, sizes, total_repeat_length=self.size)

    def _moved(self, theta, frames_):
        for layer, frame in zip(self.framed, frames_):
            weight = theta[layer.start : layer.stop].reshape(layer.rows, layer.columns)
            theta = theta.at[layer.start : layer.stop].set(frames.translated(weight, frame).reshape(-1))
        return theta

    def weights(self, theta) -> dict:
        """theta (p,) as the module's parameters, in the network's dtype."""
        theta = theta.astype(self.dtype)
        flat = {
            layer.path + ("weight",): theta[layer.start : layer.stop].reshape(layer.rows, layer.columns)
            for layer in self.layers
        }
        return traverse_util.unflatten_dict(flat)

    def field(self, theta, x):
        """What the parameters represent and the norms measure, log u or scales u, at x (n, d): (n, m)."""
        return self.module.apply({"params": self.weights(theta)}, x.astype(self.dtype))

    def values(self, theta, x):
        """u at x (n, d): (n, m)."""
        field = self.field(theta, x)
        return jnp.exp(field) if self.log_density else field / self.scales.astype(field.dtype)

    def as_field(self, values):
        """The field of values u (..., m)."""
        return jnp.log(values) if self.log_density else values * self.scales.astype(values.dtype)

    def as_field_rate(self, f, u):
        """The time derivative of the field where u_t = f: both (m,)."""
        return f / u if self.log_density else f * self.scales.astype(f.dtype)

    def function(self, theta, unit=None) -> Callable:
        """u as a function of one point (d,): a scalar if m = 1, else (m,). For right-hand sides.

        unit: a point (d,) where u shall be one, if the field is log u: then the result is u / u(unit), which neither
        over- nor underflows near that point, however far it is from the mass (in d = 50 a float32 density is zero
        within the reach of its own Gaussian). A right-hand side that is linear in u turns it into L[u] / u(unit).
        """
        if self.log_density and unit is not None:
            log = self.field(theta, unit[None])[0, 0]
            return lambda x: jnp.exp(self.field(theta, x[None])[0, 0] - log)

        def u(x):
            value = self.values(theta, x[None])[0]
            return value[0] if self.outputs == 1 else value

        return u

    def factors(self, theta, x, basis=None):
        """The field and the factors of its Jacobian at x (n, d), by parameters in a basis if one is given.

        Returns:
            field (n, m), and for each layer (A, D): inputs A (n, rows) and cotangents
            D (n, outputs of the layer, columns): d field_k(x_i) / d W = A_i outer D_ik.
        """
        x, params = x.astype(self.dtype), self.weights(theta)
        # Zeros made from x, not from a shape: under shard_map they vary over the mesh as x does.
        zeros = {
            layer.path + ("output",): jnp.zeros((len(x), layer.columns), self.dtype) + 0 * x[:, :1]
            for layer in self.layers
        }

        def apply(perturbations):
            variables = {"params": params, "perturbations": traverse_util.unflatten_dict(perturbations)}
            return self.module.apply(variables, x, mutable=["intermediates"])

        field, pullback, state = jax.vjp(apply, zeros, has_aux=True)
        cotangents = [pullback(jnp.zeros_like(field).at[:, k].set(1))[0] for k in range(self.outputs)]
        inputs = traverse_util.flatten_dict(state["intermediates"])
        inputs = [inputs[layer.path + ("input",)][0] for layer in self.layers]
        if basis is not None:
            for layer, frame in zip(self.framed, basis.frames):
                z = (coordinates(self.domain, x) - frame.mean) @ frame.matrix.T
                features = frames.monomials(z) if layer in self.quadratics else z
                inputs[self.layers.index(layer)] = frames.affine(features).astype(self.dtype)
            inputs = [scale.astype(self.dtype) * a for scale, a in zip(basis.scales, inputs)]
        factors = tuple(
            (a, jnp.stack([cotangents[k][layer.path + ("output",)] for k in range(*layer.outputs)], axis=1))
            for layer, a in zip(self.layers, inputs)
        )
        return field, factors


def build_network(settings: NetworkSettings, problem, outputs: int | None = None) -> Network:
    """The network of a problem, or one like it with more outputs and no scales. Raises InputError if settings
    and domain do not go together."""
    return Network(settings, problem, outputs)


def restrict(theta, wide: Network, narrow: Network):
    """theta of a network without the outputs that another, with the same trunk, has beyond it: (p,)."""
    parts = []
    for source, target in zip(wide.layers, narrow.layers):
        weight = theta[source.start : source.stop].reshape(source.rows, source.columns)
        parts.append(weight[:, : target.columns].reshape(-1))
    return jnp.concatenate(parts)
