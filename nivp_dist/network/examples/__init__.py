"""Ready-made networks, to be named by network.class, and to be copied into a file of your own and changed."""

from nivp_dist.network.examples.fourier_resnet import FourierResNet
from nivp_dist.network.examples.particles import Particles
from nivp_dist.network.examples.separable import Separable

__all__ = ["FourierResNet", "Particles", "Separable"]
