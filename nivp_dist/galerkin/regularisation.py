"""What the solves of one step share: mu, and the approximation of M or K that CG is preconditioned with."""

from typing import NamedTuple

import jax

from nivp_dist.galerkin import kernel, nystrom
from nivp_dist.network.frames import Basis


class Regularisation(NamedTuple):
    """Made by ``Galerkin.prepare`` at the start of a step.

    Attributes:
        mu: absolute. trace: tr M.
        sketch: of M, of rank 0 with direct solves and with "dual_pcg".
        iteration_limit: products that CG may take.
        basis: in which the parameters are solved for; None: that of the network's own parameters.
        factor: with "dual_pcg" the approximation of K. lower: with it, the Cholesky factor that belongs to mu
            (``Galerkin.with_mu``); None: each solve makes it.
    """

    mu: jax.Array
    trace: jax.Array
    sketch: nystrom.Sketch
    iteration_limit: jax.Array
    basis: Basis | None = None
    factor: kernel.Factor | None = None
    lower: jax.Array | None = None
