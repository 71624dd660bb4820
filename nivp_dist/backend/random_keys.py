"""The key of every random number of a run: each is derived here from the key of the run, and nowhere else.

A key is named after its purpose, which is folded in before any counter, so that keys of two purposes never coincide,
whatever the numbers of steps, rounds and outputs. The same purpose at the same step, round or output gives the same
key on every process and after a resume, so that a run repeats to the last bit. Keys are typed keys of ``jax.random``.
"""

import enum
from typing import NamedTuple

import jax


class Purpose(enum.IntEnum):
    """What random numbers are for. The values are part of every result: new purposes are appended."""

    PILOT = 1
    PILOT_ROUND = 2
    PILOT_SPLIT = 3
    INITIAL_FIT = 4
    REFIT = 5
    INITIAL_PARAMETERS = 6
    REFIT_PARAMETERS = 7
    REINITIALISE = 8
    RATE_SCALES = 9
    FIT_MEASURE = 10
    FIT_ROUND = 11
    FIT_POINTS = 12
    FIT_CHECK = 13
    FIT_SKETCH = 14
    STEP_POINTS = 15
    STEP_SKETCH = 16
    STEP_CHECK = 17
    RESIDUAL_SELECTION = 18
    SOLUTION_SELECTION = 19
    EVALUATION = 20
    SKETCH_ROW = 21
    DEVICE_PIVOTS = 22
    BLOCK_PIVOTS = 23
    ANNEALING = 24
    PILOT_SAMPLES = 25
    PILOT_MIXTURE = 26
    MASS_CHECK = 27
    PATH_PART = 28
    PATH_NOISE = 29
    SPECTRUM_PROBES = 30
    STABILITY_DIRECTION = 31
    RESIDUAL_POINTS = 32
    START_EVALUATION = 33
    POPULATION = 34
    PARTS = 35
    TAILS = 36


def run_key(seed: int):
    """The key of a run, from which all others follow."""
    return jax.random.key(seed)


def from_data(data):
    """The key whose raw data, as a checkpoint holds them, are these."""
    return jax.random.wrap_key_data(data)


def to_data(key):
    """The raw data of a key, uint32."""
    return jax.random.key_data(key)


# The first density --------------------------------------------------------------------------------------------------


def pilot_key(run):
    """Of the draws to which the first density of the points is fitted."""
    return _derive(run, Purpose.PILOT)


def pilot_round_key(pilot, round_: int):
    """Of one of these draws."""
    return _derive(pilot, Purpose.PILOT_ROUND, round_)


def pilot_split_key(pilot):
    """Of the means of several Gaussians, which start around the mean of one."""
    return _derive(pilot, Purpose.PILOT_SPLIT)


def annealing_key(pilot):
    """Of the population that is annealed towards the initial condition."""
    return _derive(pilot, Purpose.ANNEALING)


def pilot_samples_key(pilot):
    """Of the samples of the initial condition that the problem gives."""
    return _derive(pilot, Purpose.PILOT_SAMPLES)


def pilot_mixture_key(pilot):
    """Of the mixtures with which the fit to samples begins."""
    return _derive(pilot, Purpose.PILOT_MIXTURE)


def mass_check_key(pilot):
    """Of the points that show how much of the initial condition the first density has found."""
    return _derive(pilot, Purpose.MASS_CHECK)


def population_key(run):
    """Of the population of the initial density, by which its points are chosen."""
    return _derive(run, Purpose.POPULATION)


def parts_key(run):
    """Of the mixtures that are fitted to that population."""
    return _derive(run, Purpose.PARTS)


def tails_key(run):
    """Of points in the tails of the initial density."""
    return _derive(run, Purpose.TAILS)


# Fits -----------------------------------------------------------------------------------------------------------------


def initial_fit_key(run):
    """Of the initial fit."""
    return _derive(run, Purpose.INITIAL_FIT)


def refit_key(run, step: int):
    """Of the refit after that many accepted steps."""
    return _derive(run, Purpose.REFIT, step)


def initial_parameters_key(initial_fit):
    """Of the parameters with which the initial fit begins."""
    return _derive(initial_fit, Purpose.INITIAL_PARAMETERS)


def refit_parameters_key(refit):
    """Of the parameters with which a refit begins."""
    return _derive(refit, Purpose.REFIT_PARAMETERS)


def reinitialisation_key(fit, round_: int):
    """Of the parameters with which a fit begins again when it was stuck at that round."""
    return _derive(fit, Purpose.REINITIALISE, round_)


def rate_scales_key(fit):
    """Of the points on which the scales of the time derivatives are measured."""
    return _derive(fit, Purpose.RATE_SCALES)


def fit_measure_key(fit):
    """Of the points on which the error of a finished fit is measured."""
    return _derive(fit, Purpose.FIT_MEASURE)


def fit_round_key(fit, round_: int):
    """Of a round of a fit; a round of Adam draws its points with it."""
    return _derive(fit, Purpose.FIT_ROUND, round_)


def fit_points_key(fit_round):
    """Of the points on which a round solves for its corrections."""
    return _derive(fit_round, Purpose.FIT_POINTS)


def fit_check_key(fit_round):
    """Of the points on which a round chooses among its corrections."""
    return _derive(fit_round, Purpose.FIT_CHECK)


def fit_sketch_key(fit_round):
    """Of the Nystrom approximation of a round."""
    return _derive(fit_round, Purpose.FIT_SKETCH)


# Steps ----------------------------------------------------------------------------------------------------------------


class StepKeys(NamedTuple):
    """Those of the functions below: of a step's points, its sketches and its check."""

    points: jax.Array
    sketch: jax.Array
    check: jax.Array


def step_points_key(run, draw: int):
    """Of the collocation points of a step. draw: the number of the draw; several steps may share one."""
    return _derive(run, Purpose.STEP_POINTS, draw)


def step_sketch_key(run, step: int):
    """Of the Nystrom approximations of a step."""
    return _derive(run, Purpose.STEP_SKETCH, step)


def step_check_key(run, step: int):
    """Of the fresh points on which the residual of a step's velocity is checked."""
    return _derive(run, Purpose.STEP_CHECK, step)


@jax.jit
def step_keys(data, draw, step) -> StepKeys:
    """The keys of a step by one program, from the raw data of the key of the run."""
    run = from_data(data)
    return StepKeys(step_points_key(run, draw), step_sketch_key(run, step), step_check_key(run, step))


def spectrum_probes_key(run, step: int):
    """Of the vectors with which the spectrum of a step's matrix is measured."""
    return _derive(run, Purpose.SPECTRUM_PROBES, step)


def stability_direction_key(run, step: int):
    """Of the direction from which the spectral radius of d velocity / d theta is found between implicit steps."""
    return _derive(run, Purpose.STABILITY_DIRECTION, step)


def residual_points_key(run, step: int):
    """Of the points of a step that follow the residual of its pilot, which has those of ``step_points_key``."""
    return _derive(run, Purpose.RESIDUAL_POINTS, step)


def residual_selection_key(points):
    """Of the selection of points among candidates by their residual. points: the key of the candidates."""
    return _derive(points, Purpose.RESIDUAL_SELECTION)


def solution_selection_key(points):
    """Of the selection of points among candidates by the solution. points: the key of the candidates."""
    return _derive(points, Purpose.SOLUTION_SELECTION)


def path_part_key(points):
    """Of the choice of the paths in the tails. points: the key of the draw."""
    return _derive(points, Purpose.PATH_PART)


def path_noise_key(points, step, row):
    """Of the noise in one step of one path. points: the key of the draw."""
    return _derive(points, Purpose.PATH_NOISE, step, row)


# Evaluation -----------------------------------------------------------------------------------------------------------


def evaluation_key(run, output: int):
    """Of the points on which the errors of an output are computed: no points of a fit or a step."""
    return _derive(run, Purpose.EVALUATION, output)


def start_evaluation_key(run):
    """Of the points on which the fitted initial condition is compared with the accuracy asked for."""
    return _derive(run, Purpose.START_EVALUATION)


# Inside of compiled programs ------------------------------------------------------------------------------------------


def row_key(sketch, row):
    """Of a row of the test matrix of a Nystrom approximation: the same however rows are split over devices."""
    return _derive(sketch, Purpose.SKETCH_ROW, row)


def device_pivots_key(sketch, device):
    """Of the candidates for pivots among the points of one device."""
    return _derive(sketch, Purpose.DEVICE_PIVOTS, device)


def block_pivots_key(sketch, block):
    """Of a block of pivots, the same on all devices."""
    return _derive(sketch, Purpose.BLOCK_PIVOTS, block)


def several(key, count: int):
    """Keys (count,) of the draws of one purpose, from its key, from which nothing else is derived."""
    return jax.random.split(key, count)


def _derive(key, purpose: Purpose, *counters):
    """The key of a purpose and its counters, such as the number of a step."""
    for number in (purpose, *counters):
        key = jax.random.fold_in(key, number)
    return key
