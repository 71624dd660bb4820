"""The words of messages: present values of settings, the mass of a start, and the verdict on a run that has ended."""

import re

import pytest

from nivp_dist.monitoring.advice import refit_outcome, unseen_mass, verdict, with_values
from nivp_dist.settings.fits import FitSettings
from nivp_dist.settings.model import Config

CONFIG = Config(problem={"name": "heat"}, network={"width": 12}, solver={"mu": 1e-9}, sampling={"points": 500})


def test_messages_give_the_values_of_the_settings_that_they_name():
    line = "points: few; try more sampling.points, sampling.method = 'density' or a larger solver.mu, network.width"
    values = "sampling.points = 1000, solver.mu = 1e-09, network.width = 12"
    assert with_values(line, CONFIG, sampling_points=1000) == f"{line} (now {values})"  # the run has doubled them
    assert with_values("try restart.fit.points, sampling.chunk", CONFIG) == "try restart.fit.points, sampling.chunk"
    assert with_values("nothing is to be done", CONFIG) == "nothing is to be done"


@pytest.mark.parametrize(
    "mass, error, line",
    [
        (1.015, 0.0, None),
        (1.5, 0.2, None),  # noise
        (0.6, 0.001, "points: they see a mass of 0.6 of initial(x)"),
        (15.518, 0.03, "mass: the integral of initial(x) is 15.5"),  # points cannot see more than there is
    ],
)
def test_a_start_with_another_mass_than_one_is_said(mass, error, line):
    found = unseen_mass(mass, error)
    assert found is None if line is None else found.startswith(line)


def outputs(*errors):
    return {float(t): {"relative_l2": error, "estimate": estimate} for t, (error, estimate) in enumerate(errors)}


@pytest.mark.parametrize(
    "errors, held, words",
    [
        (outputs((1e-5, 1e-5), (9e-4, 5e-2)), True, "is held at all outputs: the largest error .* 9.00e-04, at t = 1"),
        (outputs((2e-3, 1e-5), (9e-4, 1e-4)), False, "is missed: the largest error .* is 2.00e-03, at t = 0; ask for"),
        (outputs((None, 1e-5), (None, 5e-4)), True, "as far as the run can tell: the estimated error is 5.00e-04"),
        (outputs((None, 1e-5), (None, 5e-3)), False, "is not known to be held: the estimated error is 5.00e-03"),
        (outputs((1e-5, 1e-5), (None, 5e-1)), True, "is held at all outputs"),  # where there is a reference
    ],
)
def test_a_run_that_has_ended_is_judged_by_the_accuracy_it_was_asked_for(errors, held, words):
    found = verdict(1e-3, errors)
    assert found is not None and found.held is held
    assert re.search(words, found.message) and found.message.startswith("accuracy = 0.001")
    assert verdict(None, errors) is None and verdict(1e-3, {}) is None


def test_a_refused_refit_says_what_to_try():
    assert refit_outcome(CONFIG, FitSettings(), 1e-4, 1e-3, True).endswith("1.00e-04: accepted")
    refused = refit_outcome(CONFIG, FitSettings(), 1e-2, 1e-3, False)
    assert "refused, the bound is 0.001; raise network.width, restart.fit.iterations" in refused
    assert refused.endswith("(now network.width = 12)")
