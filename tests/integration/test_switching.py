"""When steps become implicit and explicit again, on made-up steps of known work; and the spectral radius behind it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.integration.stability import spectral_radius
from nivp_dist.integration.switching import (
    CORRECTIONS,
    IN_VAIN,
    MEASURED_EVERY,
    PAYS,
    SETTLED,
    WAIT_LONGER,
    WINDOW,
    Switching,
    TakenStep,
    implicit_step,
)

RTOL, CORRECTION = 1e-5, 2.0
STIFF = TakenStep(h=0.01, work=6.0, rate=1.0, rho=370.0, angle=180.0, limit=3.7)  # as long as stability allows


def steps(switching, count, taken, first=0, correction=CORRECTION):
    """The method before each of so many steps, and the last state of all."""
    names = []
    for step in range(first, first + count):
        switching = switching.before_step(step, correction, RTOL)
        names.append(switching.name)
        switching = switching.after_step(taken(switching.name) if callable(taken) else taken)
    return names, switching


@pytest.mark.parametrize("angle, name", [(180.0, "bdf"), (125.0, "bdf"), (90.0, "sdirk"), (60.0, "sdirk")])
def test_steps_bound_by_stability_become_implicit(angle, name):
    dear = STIFF._replace(work=200.0, angle=angle)
    assert steps(Switching.begin(), WINDOW + 1, dear)[0] == ["explicit"] * WINDOW + [name]


def test_what_is_known_of_explicit_steps_is_kept():
    _, switching = steps(Switching.begin(), WINDOW + 3, STIFF._replace(work=50.0))
    assert switching.step == WINDOW and (switching.rho, switching.limit, switching.explicit_work) == (370.0, 3.7, 50.0)
    assert switching.explicit_step == pytest.approx(0.01)
    assert np.isnan(switching.records[:-3]).all()  # those of explicit steps are forgotten


@pytest.mark.parametrize("changes", [{"rho": 100.0}, {"rho": 0.0}, {"limit": np.inf}, {"rate": np.nan}, {"rate": 1e3}])
def test_other_steps_stay_explicit(changes):
    """Short of stability, of a mode that grows, and of a solution that changes too fast for longer steps."""
    assert set(steps(Switching.begin(), 50, STIFF._replace(work=50.0)._replace(**changes))[0]) == {"explicit"}


def test_single_steps_that_miss_the_fast_modes_do_not_matter():
    missed = iter([0, 1, 1, 0, 1, 0, 1, 1] * 3)

    def taken(_):
        return STIFF._replace(work=50.0, **({} if next(missed) else {"rho": 40.0, "angle": 5.0}))

    assert steps(Switching.begin(), WINDOW + 1, taken)[0][-1] == "bdf"


def test_the_work_decides():
    """Two corrections a step, of the length that the tolerance allows, against six of explicit work in 0.01."""
    pays = 6.0 / 0.01 / PAYS * implicit_step("bdf", 1.0, RTOL) / CORRECTIONS["bdf"]
    for correction, name in [(0.99 * pays, "bdf"), (1.01 * pays, "explicit")]:
        assert steps(Switching.begin(), WINDOW + 1, STIFF, correction=correction)[0][-1] == name


def test_the_length_of_an_implicit_step_is_that_of_an_exponential():
    """The formula of order 2 on y' = -y, from exact values: its error is the tolerance, but for higher powers of h."""
    h = implicit_step("bdf", 1.0, RTOL)
    new = (4 / 3 * 1.0 - 1 / 3 * np.exp(h)) / (1 + 2 / 3 * h)
    assert abs(new - np.exp(-h)) == pytest.approx(RTOL, rel=0.1)
    assert implicit_step("bdf", 10.0, RTOL) == pytest.approx(h / 10)


def taken_by(name, implicit=TakenStep(0.1, 12.0)):
    return STIFF._replace(work=50.0) if name == "explicit" else implicit


def test_implicit_steps_go_on_while_they_cost_less():
    assert set(steps(Switching.begin(), 100, taken_by)[0][WINDOW:]) == {"bdf"}


def test_explicit_steps_return_when_the_stiffness_is_gone():
    _, switching = steps(Switching.begin(), WINDOW + SETTLED, taken_by)
    names, switching = steps(switching._replace(rho=5.0), 3, taken_by, first=WINDOW + SETTLED)
    assert set(names) == {"explicit"} and np.isnan(switching.records[:-3]).all()
    assert switching.wait == WAIT_LONGER * WINDOW


def test_where_no_explicit_step_is_accepted_implicit_ones_stay_until_rho_is_measured():
    forced = Switching.begin().without_explicit(3, shortest=1e-6, limit=3.7, work=6.0)
    assert forced.name == "bdf" and forced.explicit_step == pytest.approx(1e-6)
    names, switching = steps(forced, MEASURED_EVERY, taken_by, first=3)
    assert set(names) == {"bdf"} and switching.measures(3 + MEASURED_EVERY)
    assert steps(switching._replace(rho=5.0), 2, taken_by, first=3 + MEASURED_EVERY)[0] == ["explicit"] * 2


def test_a_stiffness_that_comes_again_is_met_as_soon_as_the_first_one():
    last = WINDOW + IN_VAIN
    _, switching = steps(Switching.begin(), last, taken_by)
    names, _ = steps(switching._replace(rho=5.0), WINDOW + 1, taken_by, first=last)
    assert names == ["explicit"] * WINDOW + ["bdf"]


def test_tries_in_vain_become_rare():
    """Steps that turn out dearer than was estimated: of 5,000 a few per cent are lost on them."""
    names, _ = steps(Switching.begin(), 5000, lambda name: taken_by(name, TakenStep(0.01, 80.0)))
    changes = sum(a != b for a, b in zip(names, names[1:]))
    assert 4 <= changes <= 12 and names.count("bdf") <= SETTLED * 6
    assert names[-1] == "explicit"


def test_rho_is_measured_at_intervals():
    switching = Switching.begin()._replace(method=1, step=10)
    due = [step for step in range(10, 120) if switching.measures(step)]
    assert len(due) == 4 and due[0] > 10 and not any(map(Switching.begin().measures, range(100)))


def test_the_spectral_radius_of_a_known_matrix():
    """Eigenvalues -k^2, as of diffusion, in a basis that is not orthogonal."""
    basis = np.eye(30) + 0.1 * np.random.default_rng(0).standard_normal((30, 30))
    matrix = jnp.asarray(basis @ np.diag(-(np.arange(30.0) ** 2)) @ np.linalg.inv(basis))
    theta, direction = jnp.arange(1.0, 31.0), jax.random.normal(jax.random.key(0), (30,))
    found = spectral_radius(lambda theta: matrix @ theta + 5.0, theta, direction)
    assert 0.75 * 29**2 < found < 1.05 * 29**2
