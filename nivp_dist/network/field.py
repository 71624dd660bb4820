"""The field that the parameters represent, as flax modules: MLP, quadratic forms, boundary factor."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist import backend  # noqa: F401
from nivp_dist.network import boundary, frames
from nivp_dist.network.embedding import chebyshev, embedding
from nivp_dist.network.own_network import OwnNetwork
from nivp_dist.problems.domains import Domain, columns
from nivp_dist.settings.model import NetworkSettings

ACTIVATIONS: dict[str, Callable] = {"swish": nn.swish, "tanh": jnp.tanh, "gelu": nn.gelu, "sin": jnp.sin}

TRUNK = "trunk"  # the name of what all outputs share: the MLP, or a network of the user's own


class Affine(nn.Module):
    """y = [a, 1] W. W is LeCun normal at first, its bias row zero. flax's sow and perturb expose a and dy."""

    features: int

    @nn.compact
    def __call__(self, a):
        a = frames.affine(a)
        weight = self.param("weight", _lecun_with_zero_bias, (a.shape[-1], self.features), a.dtype)
        self.sow("intermediates", "input", a)
        return self.perturb("output", a @ weight)


def _lecun_with_zero_bias(key, shape, dtype):
    kernel = jax.random.normal(key, (shape[0] - 1, shape[1]), jnp.float64) / np.sqrt(shape[0] - 1)
    return jnp.concatenate([kernel, jnp.zeros((1, shape[1]))]).astype(dtype)


class MLP(nn.Module):
    """`depth` hidden layers of equal width, then a linear head."""

    width: int
    depth: int
    outputs: int
    activation: str

    @nn.compact
    def __call__(self, a):
        for layer in range(self.depth):
            a = ACTIVATIONS[self.activation](Affine(self.width, name=f"hidden_{layer:02d}")(a))
        return Affine(self.outputs, name="head")(a)


def number_of_gaussians(settings: NetworkSettings) -> int:
    """network.gaussians as a number; one where it is 'auto' still (``network.for_problem``)."""
    return 1 if settings.gaussians == "auto" else settings.gaussians


class Field(nn.Module):
    """The field, u itself or q = log u for a density: x (n, d) -> (n, m).

    Outputs beyond the first `fields`, if any, are the time derivatives of these (``fitting.time_derivative_targets``).
    Of an exponential u they are u times the trunk's output, because a time derivative has both signs.

    Attributes:
        parities: pairs of an axis and the sign of every field under its reflection. The features of such axes are even
            ones only, and a field that is odd has a factor.
    """

    settings: NetworkSettings
    domain: Domain
    outputs: int
    fields: int
    form: str
    parities: tuple[tuple[int, tuple[int, ...]], ...] = ()
    own: OwnNetwork | None = None  # in place of embedding and MLP

    @nn.compact
    def __call__(self, x):
        s, domain = self.settings, self.domain
        xi, even = coordinates(domain, x), tuple(axis for axis, _ in self.parities)
        if self.own is not None:
            y = self.own.module(self.outputs, TRUNK)(xi)
        elif s.trunk == "shared" or self.fields == 1:
            a = embedding(xi, domain, s, even)
            y = MLP(s.width, s.depth, self.outputs, s.activation, name=TRUNK)(a)
        else:
            a = embedding(xi, domain, s, even)
            nets = [MLP(s.width, s.depth, 1, s.activation, name=f"output_{k:02d}") for k in range(self.outputs)]
            y = jnp.concatenate([net(a) for net in nets], axis=-1)
        if self.form != "direct" and domain.polynomial_axes and number_of_gaussians(s) > 0:
            # The quadratic form alone represents a Gaussian exactly; the MLP represents the rest.
            names = ["quadratic"] + [f"quadratic_{k:02d}" for k in range(1, number_of_gaussians(s))]
            inputs = columns(xi, domain.polynomial_axes)
            forms = [Affine(self.outputs, name=name)(frames.monomials(inputs)) for name in names]
            y = y + (forms[0] if len(forms) == 1 else nn.logsumexp(jnp.stack(forms), axis=0))
            if s.additive:
                y = y + Affine(self.outputs, name="additive")(chebyshev(xi, s.additive))
        if self.form == "exponential":
            u = jnp.exp(y[:, : self.fields])
            y = jnp.concatenate([u, u * y[:, self.fields :]], axis=-1) if self.outputs > self.fields else u
        for factor in boundary.factors(domain, xi):
            y = y + jnp.log(factor) if self.form == "log_density" else y * factor
        for axis, signs in self.parities:
            if -1 in signs:  # an output that is a time derivative is as odd as its field
                factor = boundary.odd_factor(domain.axes[axis], xi[:, axis : axis + 1])
                y = y * jnp.where(np.array(signs * (self.outputs // self.fields)) < 0, factor, 1.0)
        return y


def coordinates(domain: Domain, x):
    """x (n, d) in units of the domain: [-1, 1] along bounded axes."""
    return (x - jnp.asarray(domain.centre, x.dtype)) / jnp.asarray(domain.scale, x.dtype)


def form_coordinates(domain: Domain, x):
    """The coordinates (n, k), in units of the domain, of which quadratic forms are made."""
    return columns(coordinates(domain, x), domain.polynomial_axes)


def along_form_axes(domain: Domain, masses, means, covariances):
    """Gaussians (K,), (K, d), (K, d, d) along the axes of quadratic forms; along the others their mass is even."""
    axes = list(domain.polynomial_axes)
    if len(axes) == domain.dimension:
        return masses, means, covariances
    others = np.setdiff1d(np.arange(domain.dimension), axes)
    return masses / np.prod(2 * domain.scale[others]), means[:, axes], covariances[:, axes][:, :, axes]
