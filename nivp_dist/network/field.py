"""The field that the parameters represent, as flax modules: embedding, MLP, quadratic forms, boundary factor."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist import backend  # noqa: F401
from nivp_dist.network import frames
from nivp_dist.problems.domains import Domain
from nivp_dist.settings.model import NetworkSettings

ACTIVATIONS: dict[str, Callable] = {"swish": nn.swish, "tanh": jnp.tanh, "gelu": nn.gelu, "sin": jnp.sin}


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
    """network.gaussians as a number; one where it is 'auto' still (``network.with_gaussians``)."""
    return 1 if settings.gaussians == "auto" else settings.gaussians


class Field(nn.Module):
    """The field, u itself or q = log u for a density: x (n, d) -> (n, m).

    Outputs beyond the first `fields`, if any, are the time derivatives of these (``fitting.time_derivative_targets``).
    Of an exponential u they are u times the trunk's output, because a time derivative has both signs.
    """

    settings: NetworkSettings
    domain: Domain
    outputs: int
    fields: int
    form: str
    even: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x):
        s, domain = self.settings, self.domain
        xi = coordinates(domain, x)
        a = embed(xi, number_of_frequencies(s, domain), s.alpha, domain.walls == "periodic", self.even)
        if s.trunk == "shared" or self.fields == 1:
            y = MLP(s.width, s.depth, self.outputs, s.activation, name="trunk")(a)
        else:
            nets = [MLP(s.width, s.depth, 1, s.activation, name=f"output_{k:02d}") for k in range(self.outputs)]
            y = jnp.concatenate([net(a) for net in nets], axis=-1)
        if self.form != "direct":
            # The quadratic form alone represents a Gaussian exactly; the MLP represents the rest.
            names = ["quadratic"] + [f"quadratic_{k:02d}" for k in range(1, number_of_gaussians(s))]
            forms = [Affine(self.outputs, name=name)(frames.monomials(xi)) for name in names]
            y = y + (forms[0] if len(forms) == 1 else nn.logsumexp(jnp.stack(forms), axis=0))
            if s.additive:
                y = y + Affine(self.outputs, name="additive")(chebyshev(xi, s.additive))
        if self.form == "exponential":
            u = jnp.exp(y[:, : self.fields])
            y = jnp.concatenate([u, u * y[:, self.fields :]], axis=-1) if self.outputs > self.fields else u
        if domain.walls == "zero":
            y = y * jnp.prod(1 - xi**2, axis=-1, keepdims=True)
        return y


def coordinates(domain: Domain, x):
    """x (n, d) in units of the domain: [-1, 1]^d for a box."""
    return (x - jnp.asarray(domain.centre, x.dtype)) / jnp.asarray(domain.scale, x.dtype)


def number_of_frequencies(settings: NetworkSettings, domain: Domain) -> int:
    """L: as set, else the number of the exponents in a list alpha, else 4 on boxes, and 0 on the whole space, which has
    no length that a wave could fit."""
    if settings.frequencies is not None:
        return settings.frequencies
    if isinstance(settings.alpha, list):
        return len(settings.alpha)
    return 4 if domain.bounded else 0


def embed(xi, frequencies: int, alpha, periodic: bool, even: tuple[int, ...] = ()):
    """x and sin(w_k x) / w_k^alpha, cos(w_k x) / w_k^alpha, w_k = 2^k pi/2 (arXiv 2304.14994, eq. 9).

    Args:
        xi: (n, d), in [-1, 1]^d on boxes. On a periodic box w_k = 2^k pi, and x itself is left out.
        alpha: one number, or one for each frequency. (A derivative of order q multiplies the wave k by w_k^q.)
        even: axes whose features are even ones only, x^2 and the cosines.
    """
    if not frequencies:  # jaxlib 0.11.2 crashes when it compiles a sharded program with a constant without entries
        return _coordinates_or_squares(xi, even)
    omega = wave_numbers(frequencies, periodic)
    decay = jnp.asarray(omega ** -np.broadcast_to(np.asarray(alpha, np.float64), (frequencies,)), xi.dtype)
    phase = xi[:, :, None] * jnp.asarray(omega, xi.dtype)
    odd = np.setdiff1d(np.arange(xi.shape[1]), even)
    waves = [(wave(part) * decay).reshape(len(xi), -1) for wave, part in ((jnp.sin, phase[:, odd]), (jnp.cos, phase))]
    plain = _coordinates_or_squares(xi, even)
    return jnp.concatenate(waves if periodic else [plain, *waves], axis=-1)


def _coordinates_or_squares(xi, even: tuple[int, ...]):
    """xi (n, d), with its squares along the axes in which the solution is even."""
    return jnp.where(np.isin(np.arange(xi.shape[1]), even), xi**2, xi)


def chebyshev(xi, degree: int):
    """The polynomials T_1 .. T_degree of every coordinate, xi (n, d) in [-1, 1]^d: (n, d degree)."""
    polynomials = [jnp.ones_like(xi), xi]
    while len(polynomials) <= degree:
        polynomials.append(2 * xi * polynomials[-1] - polynomials[-2])
    return jnp.concatenate(polynomials[1:], axis=-1)


def wave_numbers(count: int, periodic: bool) -> np.ndarray:
    """w_k (count,), see ``embed``."""
    return 2.0 ** np.arange(count) * (np.pi if periodic else np.pi / 2)
