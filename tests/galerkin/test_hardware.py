"""What the choice of a linear solver knows of the devices."""

from types import SimpleNamespace

import numpy as np
import pytest

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.galerkin.hardware import CORE, CPU, GPU, SLOW_FLOAT64_GPU, Hardware, hardware_of
from nivp_dist.galerkin.methods import choose_method, direct_work, step_work
from nivp_dist.network.network import build_network
from nivp_dist.problems.advection import Advection
from nivp_dist.settings.model import NetworkSettings, SolverSettings

GIB = 2**30


def network_of(width):
    return build_network(NetworkSettings(width=width), Advection())


class Gpus:
    """A mesh of GPUs that are not here."""

    axis_names = ("points",)

    def __init__(self, capability: str, memory: int, count: int):
        told = {"bytes_limit": memory}
        device = SimpleNamespace(
            platform="gpu", compute_capability=capability, process_index=0, memory_stats=lambda: told
        )
        self.devices, self.size = np.array([device] * count), count


@pytest.mark.devices
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_cores_count_as_devices_of_16_gib_unless_their_number_must_not_matter(devices):
    assert hardware_of(make_mesh(devices)) == Hardware(CPU, devices, 2**30)
    assert hardware_of(make_mesh(devices, ordered=True)) == Hardware(CPU, 1, 2**30) == CORE


@pytest.mark.parametrize(
    "capability, memory, rates, matrix",
    [("9.0", 105 * GIB, GPU, 16 * GIB), ("8.0", 30 * GIB, GPU, 4 * GIB), ("7.5", 11 * GIB, SLOW_FLOAT64_GPU, 2 * GIB)],
    ids=["H200", "A100", "T4"],
)
def test_gpus_have_their_own_rates_and_memory(capability, memory, rates, matrix):
    assert hardware_of(Gpus(capability, memory, 8)) == Hardware(rates, 8, matrix // 8)


def test_a_lower_precision_makes_products_cheaper_and_factors_not():
    network = network_of(40)
    for mesh, factor in ((make_mesh(1), 1 / 2), (Gpus("9.0", 105 * GIB, 1), 1 / 2), (Gpus("8.9", 20 * GIB, 1), 1 / 32)):
        double, single = hardware_of(mesh), hardware_of(mesh, "float32")
        assert single.rates.product == factor * double.rates.product
        assert (single.rates.stream, single.rates.build) == (double.rates.stream, double.rates.build)
        form, factorise = 1000 * network.size**2 / 2, network.size**3 / 3
        assert direct_work(network, 1000, hardware=double)["primal"] == pytest.approx(form + factorise)
        assert direct_work(network, 1000, hardware=single)["primal"] == pytest.approx(factor * form + factorise)


def test_devices_share_products_and_repeat_factorisations():
    """With so many devices that nothing is left of the shared part, the factorisation stays, and the iterations' own
    time."""
    network, many = network_of(40), Hardware(GPU, 10**9, 2**30)
    assert direct_work(network, 1000, hardware=many)["primal"] == pytest.approx(network.size**3 / 3, rel=1e-3)
    assert step_work("pcg", network, 1000, 128, 50, 6, many) == pytest.approx(6 * 50 * GPU.iteration, rel=1e-3)
    for count in (1, 2, 8):
        some = CORE._replace(devices=count)
        shared = direct_work(network, 1000)["primal"] - network.size**3 / 3
        assert direct_work(network, 1000, hardware=some)["primal"] == pytest.approx(
            shared / count + network.size**3 / 3
        )
        assert step_work("pcg", network, 1000, 128, 50, 6, some) == pytest.approx(
            step_work("pcg", network, 1000, 128, 50, 6) / count
        )


@pytest.mark.parametrize(
    "width, hardware, method",
    [
        (40, CORE, "dual_pcg"),
        (40, Hardware(GPU, 1, 2**31), "primal"),  # 100 iterations of 0.2 ms take longer than the matrix
        (40, Hardware(SLOW_FLOAT64_GPU, 1, 2**29), "dual_pcg"),  # the factorisation in float64 takes longer still
        (100, Hardware(GPU, 1, 2**31), "dual_pcg"),
        (60, Hardware(GPU, 1, 2**31), "dual_pcg"),
        (60, Hardware(GPU, 64, 2**31), "primal"),  # shared by 64, the matrix is cheaper than iterations are
        (400, Hardware(GPU, 64, 2**31), "dual_pcg"),  # a matrix of 805 GiB
    ],
)
def test_auto_chooses_by_the_devices(width, hardware, method):
    """Five points a parameter, mu = 1e-9: p = 4,081, 8,521 and so on."""
    network = network_of(width)
    points = 5 * network.size
    assert choose_method(SolverSettings(mu=1e-9), network, points, hardware=hardware) == method


def test_the_smallest_memory_bounds_the_matrix():
    """p = 22,201 needs a matrix of 3.7 GiB, where each device factorises it, and the card has a quarter of 8 GiB."""
    network = network_of(100)
    for memory, method in ((64 * GIB, "primal"), (8 * GIB, "pcg")):
        hardware = hardware_of(Gpus("9.0", memory, 1))
        assert choose_method(SolverSettings(mu=1e-11), network, 5 * network.size, hardware=hardware) == method
