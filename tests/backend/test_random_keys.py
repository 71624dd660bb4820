"""Keys of random numbers are derived in one module."""

import re
from pathlib import Path

import jax
import numpy as np

import nivp_dist
from nivp_dist.backend import random_keys as keys

PACKAGE = Path(nivp_dist.__file__).parent


def test_no_other_module_of_a_run_derives_a_key():
    """The benchmarks, which are no runs, have keys of their own."""
    derives = re.compile(r"fold_in\(|random\.split\(|wrap_key_data\(|PRNGKey\(")
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "bench" not in path.parts and derives.search(path.read_text())
    }
    assert found == {"backend/random_keys.py"}


def every_key(count: int):
    """Keys of every purpose that derives from the key of a run, with `count` values of every counter."""
    run, counters = keys.run_key(7), np.arange(count)

    def each(derive, parent):
        return jax.vmap(lambda counter: derive(parent, counter))(counters)

    pilot = keys.pilot_key(run)
    fits = [keys.initial_fit_key(run), *each(keys.refit_key, run)[:3]]
    yield from (run, pilot, *each(keys.pilot_round_key, pilot), keys.pilot_split_key(pilot), *fits)
    yield from (keys.initial_parameters_key(fits[0]), *map(keys.refit_parameters_key, fits[1:]))
    for fit in fits:
        yield from (keys.rate_scales_key(fit), keys.fit_measure_key(fit), *each(keys.reinitialisation_key, fit))
        rounds = each(keys.fit_round_key, fit)
        for derive in (keys.fit_points_key, keys.fit_check_key, keys.fit_sketch_key):
            yield from jax.vmap(derive)(rounds)
        yield from rounds
    for derive in (keys.annealing_key, keys.pilot_samples_key, keys.pilot_mixture_key, keys.mass_check_key):
        yield derive(pilot)
    points = each(keys.step_points_key, run)
    sketches = each(keys.step_sketch_key, run)
    for derive in (keys.step_check_key, keys.evaluation_key):
        yield from each(derive, run)
    yield keys.start_evaluation_key(run)
    candidates = each(keys.residual_points_key, run)
    yield from (*points, *jax.vmap(keys.solution_selection_key)(points), *sketches)
    yield from (*candidates, *jax.vmap(keys.residual_selection_key)(candidates))
    yield from jax.vmap(keys.path_part_key)(points)
    for row in (0, 1):
        yield from jax.vmap(lambda step, row=row: keys.path_noise_key(points[0], step, row))(counters)
    for derive in (keys.row_key, keys.device_pivots_key, keys.block_pivots_key):
        yield from each(derive, sketches[0])


def test_keys_of_two_purposes_never_coincide():
    """Also where steps, rounds and outputs reach the values of the purposes themselves."""
    data = [tuple(map(int, keys.to_data(key))) for key in every_key(130)]
    assert len(data) > 3000 and len(set(data)) == len(data)
