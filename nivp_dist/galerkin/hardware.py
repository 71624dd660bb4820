"""What the choice of a linear solver knows of the devices: their number, how long operations take, and what fits."""

from typing import NamedTuple

from jax.sharding import Mesh

from nivp_dist.backend import float64_rate
from nivp_dist.backend.mesh import is_ordered, memory_of, own_devices, platform_of


class Rates(NamedTuple):
    """Times on a device, in those of an operation of a product of two matrices in float64.

    Attributes:
        product, stream, build: of an operation in a product with J or its transpose, in one of a matrix with a vector,
            and in the approximation of K.
        form: of one that makes a matrix or a sketch from J.
        iteration: of what an iteration of CG takes beside its operations, the starts of programs and the all-reduce.
    """

    product: float
    stream: float
    build: float
    form: float
    iteration: float


# Measured on one and two cores (60 and 100 GFlop/s; p = 2,342 and 7,441, n = 9,000, ranks 384 and 512): 1.5 and 2.1,
# 5.6 and 10, 1 and 2.
CPU = Rates(product=2.0, stream=10.0, build=1.5, form=1.0, iteration=0.0)
# From published peak rates, of which 40 % in products of matrices and 80 % of the bandwidth are assumed to be reached;
# this project has measured none of them. An H200 has 67 TFlop/s in float64 and 4.8 TB/s: a matrix in memory gives two
# operations for each 8 bytes. An L4 has 0.47 TFlop/s in float64, 30 in float32, and 300 GB/s. An iteration takes
# 0.2 ms: some 40 programs of 5 us each. Products with J and the approximation of K are products of narrow matrices,
# and are taken to be as far from the peak as on a CPU; where the peak is low, the memory does not limit them.
GPU = Rates(product=2.0, stream=28.0, build=1.5, form=1.0, iteration=5e9)
SLOW_FLOAT64_GPU = Rates(product=1.0, stream=3.0, build=1.5, form=1.0, iteration=4e7)
# Times of products with J in less than float64, over those in float64 (`nivp bench speed precision` on a CPU).
LOWER, LOWER_ON_SLOW_FLOAT64 = 1 / 2, 1 / 32
# The part of a device's memory that the matrix of a direct solve may fill. A GPU holds its factor beside it.
MATRIX_SHARE, MATRIX_SHARE_OF_GPU = 1 / 2, 1 / 4
KERNEL_SHARE = 1 / 8  # the approximation F of K over that matrix; three times as much is needed while it is made
FLOAT64 = 8  # bytes


class Hardware(NamedTuple):
    """The devices of a run, which are all alike.

    Attributes:
        devices: over which points are shared. What is factorised, each of them factorises.
        entries: of the largest matrix that a device may hold.
    """

    rates: Rates = CPU
    devices: int = 1
    entries: int = 2**30

    @property
    def kernel_entries(self) -> int:
        """Of the largest approximation of K on a device."""
        return int(KERNEL_SHARE * self.entries)


CORE = Hardware()  # one core


def hardware_of(mesh: Mesh, precision: str = "float64") -> Hardware:
    """The hardware of a mesh, with products in solver.precision.

    On an ordered mesh nothing may depend on the number of devices, and it counts as one. All processes see the same,
    because memory and kind of their GPUs are compared when a run begins (``cluster.agreement``).
    """
    rates, lower, share = CPU, LOWER, MATRIX_SHARE
    if platform_of(mesh) != "cpu":
        rates, share = GPU, MATRIX_SHARE_OF_GPU
        if any(float64_rate.is_slow(device) for device in own_devices(mesh)):
            rates, lower = SLOW_FLOAT64_GPU, LOWER_ON_SLOW_FLOAT64
    if precision != "float64":
        rates = rates._replace(product=lower * rates.product, form=lower * rates.form)
    return Hardware(rates, 1 if is_ordered(mesh) else mesh.size, int(share * memory_of(mesh) / FLOAT64))
