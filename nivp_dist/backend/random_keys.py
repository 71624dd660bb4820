"""The key of every random number of a run: each is derived here from the key of the run, and nowhere else.

A key is named after its purpose. The same purpose at the same step, round or output gives the same key on every
process and after a resume, so that a run repeats to the last bit. Keys are typed keys of ``jax.random``.
"""

import jax

# Of a fit.
PILOT_TAG, FIT_TAG, MEASURE_TAG, REFIT_TAG, SCALES_TAG, REINITIALISE_TAG = 101, 102, 103, 104, 105, 106
# Of the first density.
ANNEALING_TAG, SAMPLES_TAG, MIXTURE_TAG, MASS_TAG = 107, 108, 109, 110
# Of a round of a fit.
ROUND_POINTS_TAG, ROUND_CHECK_TAG, ROUND_SKETCH_TAG = 0, 1, 2
# Of a step.
STEP_POINTS_TAG, STEP_SKETCH_TAG, STEP_CHECK_TAG, STEP_SELECT_TAG, STEP_SPECTRUM_TAG = 0, 1, 2, 3, 4
EVALUATION_TAG = 7919
# Of a draw of collocation points.
PATH_PART_TAG, PATH_NOISE_TAG = 111, 112


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
    return jax.random.fold_in(run, PILOT_TAG)


def pilot_round_key(pilot, round_: int):
    """Of one of these draws."""
    return jax.random.fold_in(pilot, round_)


def pilot_split_key(pilot, rounds: int):
    """Of the means of several Gaussians, which start around the mean of one. rounds: the number of draws."""
    return jax.random.fold_in(pilot, rounds)


def annealing_key(pilot):
    """Of the population that is annealed towards the initial condition."""
    return jax.random.fold_in(pilot, ANNEALING_TAG)


def pilot_samples_key(pilot):
    """Of the samples of the initial condition that the problem gives."""
    return jax.random.fold_in(pilot, SAMPLES_TAG)


def pilot_mixture_key(pilot):
    """Of the mixtures with which the fit to samples begins."""
    return jax.random.fold_in(pilot, MIXTURE_TAG)


def mass_check_key(pilot):
    """Of the points that show how much of the initial condition the first density has found."""
    return jax.random.fold_in(pilot, MASS_TAG)


# Fits -----------------------------------------------------------------------------------------------------------------


def initial_fit_key(run):
    """Of the initial fit."""
    return jax.random.fold_in(run, FIT_TAG)


def refit_key(run, step: int):
    """Of the refit after that many accepted steps."""
    return jax.random.fold_in(jax.random.fold_in(run, step), REFIT_TAG)


def initial_parameters_key(initial_fit):
    """Of the parameters with which the initial fit begins."""
    return initial_fit


def refit_parameters_key(refit):
    """Of the parameters with which a refit begins."""
    return jax.random.fold_in(refit, FIT_TAG)


def reinitialisation_key(fit, round_: int):
    """Of the parameters with which a fit begins again when it was stuck at that round."""
    return jax.random.fold_in(jax.random.fold_in(fit, REINITIALISE_TAG), round_)


def rate_scales_key(fit):
    """Of the points on which the scales of the time derivatives are measured."""
    return jax.random.fold_in(fit, SCALES_TAG)


def fit_measure_key(fit):
    """Of the points on which the error of a finished fit is measured."""
    return jax.random.fold_in(fit, MEASURE_TAG)


def fit_round_key(fit, round_: int):
    """Of a round of a fit; a round of Adam draws its points with it."""
    return jax.random.fold_in(fit, round_)


def fit_points_key(fit_round):
    """Of the points on which a round solves for its corrections."""
    return jax.random.fold_in(fit_round, ROUND_POINTS_TAG)


def fit_check_key(fit_round):
    """Of the points on which a round chooses among its corrections."""
    return jax.random.fold_in(fit_round, ROUND_CHECK_TAG)


def fit_sketch_key(fit_round):
    """Of the Nystrom approximation of a round."""
    return jax.random.fold_in(fit_round, ROUND_SKETCH_TAG)


# Steps ----------------------------------------------------------------------------------------------------------------


def step_points_key(run, draw: int):
    """Of the collocation points of a step. draw: the number of the draw; several steps may share one."""
    return _step_key(run, draw, STEP_POINTS_TAG)


def step_sketch_key(run, step: int):
    """Of the Nystrom approximations of a step."""
    return _step_key(run, step, STEP_SKETCH_TAG)


def step_check_key(run, step: int):
    """Of the fresh points on which the residual of a step's velocity is checked."""
    return _step_key(run, step, STEP_CHECK_TAG)


def spectrum_probes_key(run, step: int):
    """Of the vectors with which the spectrum of a step's matrix is measured."""
    return _step_key(run, step, STEP_SPECTRUM_TAG)


def residual_selection_key(run, draw: int):
    """Of the selection of a step's points among candidates by their residual."""
    return _step_key(run, draw, STEP_SELECT_TAG)


def solution_selection_key(points):
    """Of the selection of points among candidates by the solution. points: the key of the candidates."""
    return jax.random.fold_in(points, STEP_SELECT_TAG)


def _step_key(run, counter: int, purpose: int):
    return jax.random.fold_in(jax.random.fold_in(run, counter), purpose)


def path_part_key(points):
    """Of the choice of the paths in the tails. points: the key of the draw."""
    return jax.random.fold_in(points, PATH_PART_TAG)


def path_noise_key(points, step, row):
    """Of the noise in one step of one path. points: the key of the draw."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(points, PATH_NOISE_TAG), step), row)


# Evaluation -----------------------------------------------------------------------------------------------------------


def evaluation_key(run, output: int):
    """Of the points on which the errors of an output are computed: no points of a fit or a step."""
    return jax.random.fold_in(jax.random.fold_in(run, EVALUATION_TAG), output)


# Inside of compiled programs ------------------------------------------------------------------------------------------


def row_key(sketch, row):
    """Of a row of the test matrix of a Nystrom approximation: the same however rows are split over devices."""
    return jax.random.fold_in(sketch, row)


def device_pivots_key(sketch, device):
    """Of the candidates for pivots among the points of one device."""
    return jax.random.fold_in(sketch, device)


def block_pivots_key(sketch, block, devices: int):
    """Of a block of pivots, the same on all devices."""
    return jax.random.fold_in(sketch, devices + block)


def several(key, count: int):
    """Keys (count,) of the draws of one purpose, from its key, from which nothing else is derived."""
    return jax.random.split(key, count)
