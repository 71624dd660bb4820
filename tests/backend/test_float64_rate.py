"""GPUs that are slow in float64 are named, with what to set; others are not."""

from types import SimpleNamespace

import jax
import pytest

from nivp_dist.backend import float64_rate
from nivp_dist.run import launch
from nivp_dist.settings.model import Config


def device(kind: str, capability: str):
    return SimpleNamespace(device_kind=kind, compute_capability=capability)


@pytest.mark.parametrize("kind, capability", [("Tesla T4", "7.5"), ("NVIDIA A10", "8.6"), ("NVIDIA L4", "8.9")])
def test_slow_gpus_are_named_once_with_what_to_set(kind, capability):
    line = float64_rate.warning([device(kind, capability)] * 2 + [device("NVIDIA H200", "9.0")])
    assert line.startswith(f"{kind}: ") and "solver.precision = 'float32'" in line


@pytest.mark.parametrize("kind, capability", [("NVIDIA A100-SXM4-40GB", "8.0"), ("NVIDIA H200", "9.0")])
def test_of_others_nothing_is_said(kind, capability):
    assert float64_rate.warning([device(kind, capability), *jax.devices()]) == ""


@pytest.mark.parametrize("precision, warned", [("float64", True), ("float32", False)])
def test_a_run_in_float64_says_so_at_its_start(monkeypatch, precision, warned):
    monkeypatch.setattr(float64_rate, "warning", lambda devices: "slow")
    config = Config(problem={"name": "heat"}, solver={"precision": precision})
    assert ("slow" in launch._check(config, None, [])) == warned
