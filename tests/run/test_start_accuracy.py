"""The accuracy of a run holds at its start, in the norm of the errors that it reports."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.errors import RunFailed
from nivp_dist.monitoring.evaluation import Scorer
from nivp_dist.points.mixture import Density
from nivp_dist.points.sampling import Sampler
from nivp_dist.problems import Problem, WholeSpace
from nivp_dist.problems._gaussians import mixture_density
from nivp_dist.run import start
from nivp_dist.settings.model import Config, SamplingSettings

WEIGHTS, MEANS, VARIANCES = np.array([0.9, 0.1]), np.array([[0.0], [4.0]]), np.array([[[1.0]], [[1e-4]]])


class NarrowPart(Problem):
    """A tenth of the mass lies in a peak a hundredth as wide, which is most of what is weighted by u^3."""

    density = True
    domain = property(lambda self: WholeSpace(1, 0.0, 3.0))

    def initial(self, x):
        return mixture_density(x, WEIGHTS, MEANS, VARIANCES, jnp)


class Fitted:
    """In place of a network: u0 times 1 + theta in the narrow peak, and u0 elsewhere."""

    dtype = jnp.dtype(jnp.float64)

    def field(self, theta, x):
        values = jnp.log(mixture_density(x, WEIGHTS, MEANS, VARIANCES, jnp))
        return (values + jnp.log1p(theta) * (jnp.abs(x[:, 0] - 4) < 0.5))[:, None]

    def solution_values(self, theta, t, x):
        return jnp.exp(self.field(theta, x))


def test_the_error_at_the_start_is_that_of_the_first_output():
    """By u0, as the problem has no reference: theta times the root of the share of the peak in the integral of u0^3."""
    sampler = Sampler(SamplingSettings(components=2), NarrowPart().domain, True, make_mesh(1))
    scorer = Scorer(NarrowPart(), Fitted(), sampler, 20_000, seed=0)
    x = np.linspace(-12, 12, 240_001)
    u3 = mixture_density(x[:, None], WEIGHTS, MEANS, VARIANCES, np) ** 3
    share = np.sum(u3[np.abs(x - 4) < 0.5]) / np.sum(u3)
    density = Density(*map(jnp.asarray, (WEIGHTS, MEANS, VARIANCES)))
    found = scorer.error_at_start(jnp.asarray(0.02), density, 0.0)
    assert found == pytest.approx(0.02 * np.sqrt(share), rel=0.03) and share > 0.9


def judged(reported, error=2e-3, **fit):
    """The warnings about a start with these errors, 1e-3 asked for and a fit.target of 5e-3."""
    config = Config.model_validate({"problem": {"name": "vlasov"}, "accuracy": 1e-3, "fit": fit})
    scorer = SimpleNamespace(error_at_start=lambda *_: reported, is_density=True)
    return start.judge(config, scorer, SimpleNamespace(theta=None, density=None, t=0.0), error)


def test_a_start_that_misses_the_accuracy_is_said_and_one_that_misses_the_target_refused():
    assert judged(1e-3) == [] and judged(np.nan) == []
    (line,) = judged(2e-3)
    assert line.startswith("the initial condition has a relative L2 error of 2.00e-03, accuracy is 1e-03: raise ")
    assert "network.width" in line and "sampling.components" in line
    with pytest.raises(RunFailed, match=r"error of 2\.10e-02, accuracy is 1e-03: .* fit.on_miss = 'continue'"):
        judged(2.1e-2)
    assert len(judged(2.1e-2, error=6e-3, on_miss="continue")) == 2
