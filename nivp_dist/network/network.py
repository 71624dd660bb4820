"""The network u(x; theta) as a function of one flat vector theta, and its exact per-layer Jacobian factors.

All parameters sit in affine layers, one matrix W of shape (fan_in + 1, fan_out) each, bias in the last
row. For such a layer the gradient of output k at sample i is the outer product a_i delta_ik^T of the
layer's input and of the cotangent of its pre-activation. ``Network.factors`` returns both for all
samples; the Jacobian of the network is never needed in any other form (see ``galerkin.jacobian``).
A network of the user's own may have other parameters too, whose derivatives have the same form (``own_layers``).
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from nivp_dist import backend  # noqa: F401
from nivp_dist.backend.point_blocks import in_blocks
from nivp_dist.errors import InputError
from nivp_dist.network import frames, own_network
from nivp_dist.network.affine_layers import AffineLayers
from nivp_dist.network.balance import output_scales
from nivp_dist.network.embedding import frequencies_of, highest_wave_number
from nivp_dist.network.field import Field, along_form_axes, form_coordinates
from nivp_dist.network.forms import check, form_of
from nivp_dist.network.frames import Frame
from nivp_dist.network.own_layers import OwnLayers
from nivp_dist.problems.base import symmetries
from nivp_dist.problems.wall_data import lifting_of
from nivp_dist.settings.automatic import norm_of
from nivp_dist.settings.model import Config, NetworkSettings


class Network:
    """A flax module behind functions of a flat parameter vector theta (p,).

    Attributes:
        size: p. dimension: d. outputs: m. layers: the affine layers in the order of theta.
        log_density: True if the field is q = log u, and u = exp(q).
        scales: (m,), otherwise the field is q_k = scales_k u_k, see ``balance``.
        lifting: of the problem's wall data, or None. All but ``solution`` and ``solution_values`` is of the solution
            less the lifting.
        parameters: theta as the parameters of the module. heads: the numbers of the last layers, see ``AffineLayers``.
        own: what makes the user's own network, or None (network.class).
        quadratics: the layers that are quadratic forms. layers_with_frames: these and, where they may have a frame,
            first layers, see ``frames``.

    Raises InputError if the settings do not suit the problem.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        problem,
        outputs: int | None = None,
        t_start: float = 0.0,
        norm: Literal["field", "energy"] = "field",
    ):
        self.domain, self.lifting = problem.domain, lifting_of(problem)
        self.dimension, self.outputs = self.domain.dimension, outputs or problem.outputs
        self.dtype = jnp.dtype(settings.dtype)
        self.form = form_of(settings, problem)
        self.log_density = self.form == "log_density"
        check(settings, problem, self.form)
        self.parities = tuple(symmetries(problem).items()) if settings.symmetry and self.form == "direct" else ()
        self.own = own = own_network.load(settings, self.domain, tuple(axis for axis, _ in self.parities))
        if own is not None:
            own.check(self.outputs, self.dtype)
        self.module = Field(settings, self.domain, self.outputs, problem.outputs, self.form, self.parities, own)
        parameters = AffineLayers if own is None else OwnLayers
        self.parameters = parameters(self.module, self.dimension, self.outputs, self.dtype)
        self.layers, self.heads = self.parameters.layers, self.parameters.heads
        self.size = self.layers[-1].stop
        self.quadratics = [layer for layer in self.layers if layer.path[0].startswith("quadratic")]
        # First layers whose inputs are coordinates have frames on the whole space only: no solution moves far in a box.
        plain = own is None and not self.domain.bounded_axes and not any(frequencies_of(settings, self.domain))
        first = [layer for layer in self.layers if plain and layer.path[-1] == "hidden_00"]
        self.layers_with_frames = self.quadratics + first
        self._initialise = jax.jit(self.parameters.random)  # else dozens of small programs, compiled one by one
        self.scales = self._scales(settings, problem, t_start, norm) if outputs is None else np.ones(outputs)

    def _scales(self, settings: NetworkSettings, problem, t_start: float, norm: str) -> np.ndarray:
        if settings.output_scales == "auto":
            if self.own is not None:  # its features are not known: the lowest wavenumber counts, and that of u0
                settings = settings.model_copy(update={"frequencies": 0})
            return output_scales(problem, highest_wave_number(settings, self.domain), t_start, norm)
        if len(settings.output_scales) != self.outputs:
            raise InputError(
                f"network.output_scales has {len(settings.output_scales)} entries for {self.outputs} outputs: "
                "give one each, or 'auto'"
            )
        return np.asarray(settings.output_scales, np.float64)

    def initialise(self, key):
        """A random theta (p,) float64."""
        return self._initialise(key)

    def initialise_near(self, key, masses, means, covariances):
        """A random theta (p,) for a solution near a mixture of as many Gaussians as there are quadratic forms, K.

        For a field log u the forms are the logarithms of those Gaussians, exactly. A fit cannot find them in two cases:
        where u is narrow and off centre, the monomials are almost linearly dependent; and where the parts of u lie far
        from each other, small corrections do not assign the forms to them. Other fields are initialised at random.

        Args:
            masses: (K,). means: (K, d). covariances: (K, d, d).
        """
        theta = self.initialise(key)
        if not (self.log_density and self.quadratics):
            return theta
        masses, means, covariances = along_form_axes(self.domain, masses, means, covariances)
        axes = list(self.domain.polynomial_axes)
        rows, columns = np.triu_indices(len(axes))
        scale, centre = jnp.asarray(self.domain.scale[axes]), jnp.asarray(self.domain.centre[axes])
        for k, layer in enumerate(self.quadratics):
            mu, precision = (means[k] - centre) / scale, jnp.linalg.inv(covariances[k])
            precision = scale[:, None] * precision * scale
            linear, quadratic = precision @ mu, -jnp.where(rows == columns, 0.5, 1.0) * precision[rows, columns]
            constant = -0.5 * (mu @ linear + jnp.linalg.slogdet(2 * jnp.pi * covariances[k])[1]) + jnp.log(masses[k])
            form = jnp.concatenate([linear, quadratic, constant[None]])
            # Of a fit that has the time derivative as more outputs, the first one is log u.
            weights = jnp.zeros((layer.rows, layer.columns)).at[:, 0].set(form)
            theta = theta.at[layer.start : layer.stop].set(weights.reshape(-1))
        return theta

    def frames(self, theta, x, weights, axis: str) -> tuple[Frame, ...]:
        """A frame for each of ``layers_with_frames`` at theta, from points x (n, d) with weights (n,), see ``frames``.

        Where there are several quadratic forms, the points of each are weighted with its share of u.
        """
        if not self.layers_with_frames:
            return ()
        xi = form_coordinates(self.domain, x)
        if not self.log_density:  # the field is u = exp(form): a change of the form counts with the square of u
            weights = weights * jnp.sum(in_blocks(partial(self.field, theta), x).astype(jnp.float64) ** 2, axis=-1)
        whole = frames.fit(xi, weights, axis)
        if len(self.quadratics) <= 1:
            return tuple(whole for _ in self.layers_with_frames)
        forms = [theta[layer.start : layer.stop] for layer in self.quadratics]
        values = lambda xi: jnp.stack([frames.affine(frames.monomials(xi)) @ form for form in forms], -1)  # noqa: E731
        shares = dict(zip(self.quadratics, jax.nn.softmax(in_blocks(values, xi).T, axis=0)))
        own = lambda layer: frames.fit(xi, weights * shares[layer], axis)  # noqa: E731
        return tuple(own(layer) if layer in shares else whole for layer in self.layers_with_frames)

    def from_basis(self, theta, basis):
        """The network's parameters (p,) from their coefficients (p,) in a basis; None: the network's own."""
        if basis is None:
            return theta
        theta = theta * self._scales_of_parameters(basis)
        return self._change_frames(theta, basis.frames)

    def to_basis(self, theta, basis):
        """The inverse of ``from_basis``."""
        if basis is None:
            return theta
        inverse = basis.inverse()
        return self._change_frames(theta, inverse.frames) * self._scales_of_parameters(inverse)

    def _scales_of_parameters(self, basis):
        # Not jnp.repeat: XLA would evaluate its index, a sum of length p, while it compiles (64 s with p = 10^6).
        parts = [jnp.broadcast_to(s, (layer.stop - layer.start,)) for s, layer in zip(basis.scales, self.layers)]
        return jnp.concatenate(parts)

    def _change_frames(self, theta, frames_):
        for layer, frame in zip(self.layers_with_frames, frames_):
            weight = theta[layer.start : layer.stop].reshape(layer.rows, layer.columns)
            theta = theta.at[layer.start : layer.stop].set(frames.translated(weight, frame).reshape(-1))
        return theta

    def weights(self, theta) -> dict:
        """theta (p,) as the flax module's parameters, in the network's dtype."""
        return traverse_util.unflatten_dict(self.parameters.leaves(theta.astype(self.dtype)))

    def field(self, theta, x) -> jax.Array:
        """The field, log u or scales u, which the parameters represent and the norms measure, at x (n, d): (n, m)."""
        field = self.module.apply({"params": self.weights(theta)}, x.astype(self.dtype))
        return cast(jax.Array, field)  # `apply` returns a pair only if it is asked for other collections

    def values(self, theta, x):
        """u at x (n, d): (n, m)."""
        field = self.field(theta, x)
        return jnp.exp(field) if self.log_density else field / self.scales.astype(field.dtype)

    def as_field(self, values):
        """The field (..., m) of values u (..., m)."""
        return jnp.log(values) if self.log_density else values * self.scales.astype(values.dtype)

    def as_field_rate(self, f, u):
        """The time derivative (m,) of the field, for values u (m,) with u_t = f (m,)."""
        return f / u if self.log_density else f * self.scales.astype(f.dtype)

    def function(self, theta, unit=None) -> Callable:
        """u as a function of one point (d,), for right-hand sides; its value is a scalar if m = 1, else (m,).

        Args:
            unit: if the field is log u, a point (d,): the result is then u / u(unit), which neither overflows nor
                underflows near that point. (In d = 50 a float32 density is zero at points that its own Gaussian draws.)
                A right-hand side that is linear in u makes L[u] / u(unit) of it.
        """
        if self.log_density and unit is not None:
            log = self.field(theta, unit[None])[0, 0]
            return lambda x: jnp.exp(self.field(theta, x[None])[0, 0] - log)

        def u(x):
            value = self.values(theta, x[None])[0]
            return value[0] if self.outputs == 1 else value

        return u

    def solution(self, theta, t, unit=None) -> Callable:
        """As ``function``, at time t, with the lifting of wall data, if there are any."""
        v, lifting = self.function(theta, unit), self.lifting
        return v if lifting is None else lambda x: v(x) + lifting(x, t)

    def solution_values(self, theta, t, x):
        """As ``values``, at time t, with the lifting of wall data: (n, m)."""
        v = self.values(theta, x)
        return v if self.lifting is None else v + self.lifting.at_points(x, t)

    def factors(self, theta, x, basis=None):
        """The field and the factors of its Jacobian at x (n, d), with respect to parameters in a basis (None: its own).

        Returns:
            field (n, m), and for each layer (A, D): inputs A (n, rows) and cotangents D (n, outputs of the layer,
            columns), with d field_k(x_i) / d W the outer product of A_i and D_ik.
        """
        x = x.astype(self.dtype)
        field, inputs, cotangents = self.parameters.linearise(theta.astype(self.dtype), x)
        if basis is not None:
            for layer, frame in zip(self.layers_with_frames, basis.frames):
                z = (form_coordinates(self.domain, x) - frame.mean) @ frame.matrix.T
                features = frames.monomials(z) if layer in self.quadratics else z
                inputs[self.layers.index(layer)] = frames.affine(features).astype(self.dtype)
            inputs = [scale.astype(self.dtype) * a for scale, a in zip(basis.scales, inputs)]
        return field, tuple(zip(inputs, cotangents))


def build_network(
    settings: NetworkSettings,
    problem,
    outputs: int | None = None,
    t_start: float = 0.0,
    norm: Literal["field", "energy"] = "field",
) -> Network:
    """The network of a problem, see ``Network``; with `outputs` one like it with so many outputs, whose scales are one.

    t_start: the time of the initial condition; norm: solver.norm; both for the scales of a system.
    """
    return Network(settings, problem, outputs, t_start, norm)


def network_of(config: Config, problem) -> Network:
    """The network of a configuration, as the problem decides it (``forms.for_problem``)."""
    return build_network(config.network, problem, t_start=config.integrator.t_start, norm=norm_of(config.solver))


def restrict(theta, wide: Network, narrow: Network):
    """theta (p,) of the narrow network from that of a wide one, which has the same trunk and more outputs."""
    leaves, shapes = wide.parameters.leaves(theta), narrow.parameters.shapes
    return narrow.parameters.flat({path: leaves[path][tuple(map(slice, shape))] for path, shape in shapes.items()})
