"""Restarts: refits to the present solution, by the state alone, accepted only below their bound."""

import os
import re
import signal

import numpy as np
import pytest

from nivp_dist.errors import RunStopped
from nivp_dist.monitoring.advice import remedy
from nivp_dist.run.fits import REFIT_SHARE
from nivp_dist.settings.fits import FitSettings

# A refit when the network is older than 0.05, accepted below an error of 4e-4: some of the refits of this run are, and
# some are not.
BOUND = 4e-4
OFTEN = {"restart__max_age": 0.05, "restart__cooldown_steps": 2, "restart__bound": BOUND, "integrator__t_end": 0.2}


@pytest.fixture(scope="module")
def refitted(runs):
    return runs.run(**OFTEN)


def test_refits_happen_and_are_judged(refitted):
    messages = [message for kind, message in refitted.events if kind == "refit"]
    begun = [message for message in messages if "advanced by" in message]
    accepted = [message for message in messages if message.endswith("accepted")]
    refused = [message for message in messages if f"refused, the bound is {BOUND}" in message]
    assert len(begun) == len(accepted) + len(refused) and accepted and refused
    assert refitted.summary["refits"] == len(accepted)
    # A refit below its bound costs the solution no more than that bound.
    assert max(error["relative_l2"] for error in refitted.summary["errors"]) < BOUND * (1 + len(accepted))


def test_an_accepted_refit_is_another_network_of_the_same_solution(refitted, runs, undisturbed):
    before, after = undisturbed.snapshots()[0.0]["theta"], refitted.theta(0.2)
    other = runs.run(integrator__t_end=0.2)
    # Evolved parameters stay near their start; a fresh initialisation is far from it.
    assert np.linalg.norm(after - before) > 3 * np.linalg.norm(other.theta(0.2) - before)


def test_a_refused_refit_keeps_theta(runs):
    """A bound that no refit meets, nor its share of the estimate: the run is the one that never tried, and says so."""
    # New points at every step: with kept ones the step after an attempt takes its first velocity anew.
    ran = runs.run(**OFTEN | {"restart__bound": 1e-9, "sampling__redraw_every": 1})
    plain = runs.run(integrator__t_end=0.2, sampling__redraw_every=1)
    refused = [message for kind, message in ran.events if "refused, the bound is" in message]
    assert refused and ran.summary["refits"] == 0
    assert np.array_equal(ran.theta(0.2), plain.theta(0.2))
    assert ran.metrics == plain.metrics


def test_where_much_is_lost_a_refit_that_costs_little_is_taken(runs):
    """Refits above restart.bound, but below a share of what the run estimates that it has lost already."""
    # A mu so large that the velocity misses the right-hand side: what is lost adds up, however well refits go.
    ran = runs.run(**OFTEN | {"restart__bound": 1e-9}, solver__mu=1e-2)
    messages = [message for kind, message in ran.events if kind == "refit" and message.endswith("accepted")]
    accepted = [float(re.search(r"error of (\S+): ", message)[1]) for message in messages]
    estimates = [line["estimate_bound"] for line in ran.metrics]
    assert accepted and min(accepted) > 1e-9 and max(accepted) < REFIT_SHARE * max(estimates)


def test_no_refit_when_they_are_switched_off(runs):
    ran = runs.run(**OFTEN, restart__enabled=False)
    assert not any(kind == "refit" for kind, _ in ran.events)


# 20 refits, at 0.002, 0.004, ..., 0.04: two of them fall on output times, one of these but for rounding.
TWENTY = {"restart__every": 0.002, "restart__bound": 0.5, "integrator__t_end": 0.041, "output__times": [0.018, 0.03]}
TWENTY |= {"integrator__rtol": 1e-2, "sampling__adapt_points": False, "checkpoint__every_steps": 30}
ADAM = {"restart__fit__method": "adam", "restart__fit__steps": 200, "restart__fit__batch": 30}
ADAM |= {"restart__fit__learning_rate": 1e-2, "restart__fit__head_tuning": False}
REFITS = {"Gauss-Newton": TWENTY | {"restart__fit__iterations": 3}, "Adam": TWENTY | ADAM}


@pytest.mark.parametrize("moment, kind", [(("refit", 32), "Gauss-Newton"), (("refit", 19), "Adam")])
def test_every_refit_that_is_asked_for_is_made_at_its_time(runs, same, crash, moment, kind):
    """After a fit by Gauss-Newton; and the same bits when the run is killed in the middle of a refit."""
    whole = runs.run(**REFITS[kind])
    times = [float(match[1]) for _, message in whole.events if (match := re.match(r"refit at t = (\S+): ", message))]
    np.testing.assert_allclose(times, 0.002 * np.arange(1, 21), rtol=1e-12)
    assert all("restart.every = 0.002" in message for _, message in whole.events if message.startswith("refit at"))
    assert min(line["h"] for line in whole.metrics) > 1e-6  # no step from a refit to an output at the same time
    assert sum("refit reached" in message for _, message in whole.events) == 20
    killed = runs.begin(
        crash, moment, **REFITS[kind] | {"checkpoint__every_steps": 1}
    )  # so that one lies inside of the refit
    assert killed.summary["phase"] == "refit"
    same(runs.resume(killed), whole)
    assert [event for event in killed.events if event[0] != "resume"] == whole.events


def test_a_fit_that_misses_its_goal_says_what_it_would_take():
    adam = FitSettings(method="adam", steps=5000)
    assert remedy(adam, "fit", 1.5).startswith("raise fit.steps to about 9000, or set fit.method = 'optimiser_then_g")
    assert remedy(adam, "restart.fit", 20.0).startswith("set restart.fit.method = ")  # more steps are no remedy
    assert remedy(FitSettings(), "fit", 1.5) == "raise network.width, fit.iterations or fit.points"


@pytest.mark.parametrize("moment", [("refit", 1), ("refit", 7)])
def test_a_crash_during_a_refit_changes_nothing(runs, refitted, same, crash, moment):
    ran = runs.begin(crash, moment, **OFTEN)
    same(runs.resume(ran), refitted)
    assert [event for event in ran.events if event[0] != "resume"] == refitted.events


def test_a_stop_during_a_refit_changes_nothing(runs, refitted, same, at):
    with pytest.raises(RunStopped):
        runs.run(reporter=at("refit", 3, lambda: os.kill(os.getpid(), signal.SIGTERM)), **OFTEN)
    ran = runs.Ran(runs.folder / f"run{runs.count}")
    assert ran.summary["phase"] == "refit" and ran.summary["status"] == "stopped"
    same(runs.resume(ran), refitted)


def test_kept_points_and_a_refit_in_between(runs):
    """The network changes while the points are kept: the next first stage belongs to the new network."""
    kept = runs.run(**OFTEN | {"sampling__redraw_every": 50, "restart__bound": 1e-2})
    assert kept.summary["refits"] >= 2
    assert kept.summary["errors"][-1]["relative_l2"] < 1e-2
    refits = [i for i, (_, message) in enumerate(kept.events) if message.endswith("accepted")]
    assert refits
    # Every step is measured against the velocity it began with: one of another network leaves the whole of f.
    assert max(line["residual_fresh"] for line in kept.metrics) < 0.2
