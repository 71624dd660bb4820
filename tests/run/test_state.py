"""A state through a checkpoint: every field comes back, of the same kind and with the same bits."""

import jax
import numpy as np
import pytest

from nivp_dist.fitting.restart import Health
from nivp_dist.monitoring.adaptation import MuAdaptation, PointRefinement
from nivp_dist.monitoring.estimate import Estimate
from nivp_dist.monitoring.step_series import StepRecord
from nivp_dist.problems.heat import Heat
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.state import from_tree, to_tree
from nivp_dist.settings.model import Config
from nivp_dist.storage import checkpoint_files


@pytest.fixture(scope="module")
def simulation():
    network = {"width": 3, "depth": 1, "frequencies": 1}
    return Simulation(Config(problem={"name": "heat"}, network=network, devices=1), Heat(dimension=1))


@pytest.fixture
def state(simulation):
    """Nothing as it was at the start."""
    record = StepRecord(*np.linspace(0.1, 0.8, len(StepRecord._fields)))
    return simulation.blank()._replace(
        t=0.1 + 0.2,
        step=7,
        reuse_sketch=False,
        health=Health(3.5, 1e-3, 0.01),
        estimate=Estimate(1e-3, 2e-3, 0.1 + 0.2, 0.0, 3e-3),
        history=simulation.blank().history.after_step(record, 7)[0],
        mu_adaptation=MuAdaptation(100.0, 5),
        point_refinement=PointRefinement(4, 6),
    )


def test_every_field_comes_back(simulation, state):
    again = from_tree(to_tree(state), simulation.mesh)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    for name, mine, theirs in zip(state._fields, state, again):
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs)):
            assert type(a) is type(b), name
            np.testing.assert_array_equal(a, b, err_msg=name)
    assert again.estimate == state.estimate and isinstance(again.mu_adaptation.since, int)


def test_a_tree_holds_arrays_of_the_types_of_an_empty_one(simulation, state):
    """What a checkpoint is read against."""
    tree, template = to_tree(state), to_tree(simulation.blank())
    assert {name: np.asarray(value).dtype for name, value in tree.items()} == {
        name: np.asarray(value).dtype for name, value in template.items()
    }


@pytest.mark.parametrize("missing", ["theta", "estimate.steps", "history.records", "mu_adaptation.factor"])
def test_a_missing_entry_is_an_error(simulation, state, missing):
    tree = to_tree(state)
    del tree[missing]
    with pytest.raises(KeyError, match=missing):
        from_tree(tree, simulation.mesh)


PARAMETERS = {"theta", "velocity"}
ADAM = {"fit__method": "adam", "fit__target": 1e-9}  # which a solve for the last layer alone does not reach


@pytest.mark.parametrize(
    "moment, settings, held",
    [
        (("fit", 2), {"fit__method": "gauss_newton"}, PARAMETERS | {"fit.theta"}),
        (("fit", 2), ADAM, PARAMETERS | {"fit.theta", "fit.optimiser"}),
        (("step", 2), ADAM, PARAMETERS),
        (("refit", 2), {"restart__every": 0.02, "restart__cooldown_steps": 2}, PARAMETERS | {"fit.theta"}),
        (None, {"restart__every": 0.05, "integrator__t_end": 0.1, "restart__bound": 1e-9}, PARAMETERS),
    ],
    ids=["fit", "Adam", "steps", "refit", "end, after a refused refit"],
)
def test_a_checkpoint_holds_two_numbers_a_parameter_and_those_of_a_fit_in_progress(runs, crash, moment, settings, held):
    settings = settings | {"checkpoint__every_steps": 1, "fit__steps": 400, "fit__on_miss": "continue"}
    ran = runs.run(**settings) if moment is None else runs.begin(crash, moment, **settings)
    newest = max((ran.directory / "checkpoints").iterdir(), key=lambda path: int(path.name))
    arrays = checkpoint_files.read(newest)
    p = arrays["theta"].size
    # The state of Adam is two moments, its number of steps, and that of its schedule.
    assert {name for name, array in arrays.items() if array.shape in ((p,), (2 * p + 2,))} == held
    assert arrays["fit.optimiser"].size == (2 * p + 2 if "fit.optimiser" in held else 0)
