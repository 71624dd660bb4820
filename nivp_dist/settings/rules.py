"""What must hold between the keys of a configuration, and what follows from ``accuracy``.

Each check takes a section that has been read, and returns it. It raises ValueError, one line that names the keys and
says what to change.
"""

from typing import Any

MOST_OUTPUTS = 100_000  # each is a file, and an entry of summary.json


def one_source(problem):
    """A problem comes either from the package or from a file."""
    if (problem.name is None) == (problem.file is None):
        raise ValueError("set either problem.name or problem.file (with problem.class)")
    if problem.file is not None and problem.class_ is None:
        raise ValueError("problem.file needs problem.class, the name of the class in that file")
    return problem


def callbacks_are_named(callbacks):
    """Classes are named once each, and parameters belong to a class that is named."""
    classes = callbacks.classes or []
    if callbacks.classes is None and callbacks.file is not None:
        raise ValueError("callbacks.file needs callbacks.classes, the names of the classes in that file")
    if repeated := [name for name in classes if classes.count(name) > 1]:
        raise ValueError(f"callbacks.classes has {repeated[0]} twice: remove one")
    others = [name for name in callbacks.parameters if name not in classes]
    if others and callbacks.classes != []:
        raise ValueError(f"callbacks.parameters.{others[0]}: callbacks.classes does not name {others[0]}: add it there")
    return callbacks


# Settings of embedding and MLP.
OF_THE_MLP = ("width", "depth", "activation", "trunk", "frequencies", "alpha")


def network_keys_agree(network):
    """A network of the user's own comes without settings of the MLP; alone it may do without a quadratic form."""
    if network.class_ is None:
        for key in ("file", "parameters"):
            if getattr(network, key):
                raise ValueError(f"network.{key} needs network.class, the name of the class of the network")
        if network.gaussians == 0:
            raise ValueError("network.gaussians = 0 is for a network of your own (network.class): set at least 1")
        return one_alpha_per_frequency(network)
    for key in OF_THE_MLP:
        if getattr(network, key) != type(network).model_fields[key].default:
            raise ValueError(
                f"network.{key} has no meaning with network.class = {network.class_!r}: leave it out, or make it a "
                "parameter of that class (network.parameters)"
            )
    return network


def one_alpha_per_frequency(network):
    """A list of exponents has one entry for each frequency, of the axis that has most."""
    entries = len(network.alpha) if isinstance(network.alpha, list) else None
    most = max(network.frequencies, default=0) if isinstance(network.frequencies, list) else network.frequencies
    if entries is None or most in (None, entries):
        return network
    raise ValueError(f"network.alpha has {entries} entries for {most} frequencies: give one each, or one number")


def sampling_keys_agree(sampling):
    """Points chosen by resampling are drawn in every step; nested boxes are a kind of uniform points."""
    if sampling.method in ("residual", "solution", "paths") and sampling.redraw_every > 1:
        raise ValueError(f"sampling.redraw_every must be 1 with sampling.method = '{sampling.method}'")
    if sampling.nested_fraction > 0 and sampling.method != "uniform":
        raise ValueError(
            "sampling.nested_fraction is for sampling.method = 'uniform', "
            f"and it is {sampling.method!r}: set both, or neither"
        )
    return sampling


def solver_keys_agree(solver):
    """Sharded vectors need pcg, coarse products conjugate gradients of either kind, the energy norm method = primal."""
    if solver.norm == "energy" and solver.method != "primal":
        raise ValueError(
            f"solver.norm = 'energy' is for solver.method = 'primal', and it is {solver.method!r}: set both"
        )
    if solver.shard_vectors and solver.method != "pcg":
        raise ValueError(
            f"solver.shard_vectors is for solver.method = 'pcg', and it is {solver.method!r}: set both, or neither"
        )
    if solver.precision in ("bfloat16", "tensorfloat32") and solver.method not in ("pcg", "dual_pcg"):
        raise ValueError(
            f"solver.precision = {solver.precision!r} is for solver.method = 'pcg' or 'dual_pcg' (residuals are "
            f"in float64 there), and the method is {solver.method!r}: set that too, or 'float32'"
        )
    return solver


def runge_kutta_method(name):
    """The name under which the method is kept, for one of the names that SciPy and MATLAB use."""
    others = {"rk23": "bogacki_shampine", "rk45": "dormand_prince"}
    return others.get(name.lower(), name) if isinstance(name, str) else name


def times_and_steps_are_ordered(integrator):
    """The end comes after the start, and the shortest step is not longer than the longest."""
    if not integrator.t_start < integrator.t_end:
        raise ValueError(
            f"integrator.t_end = {integrator.t_end:g} must come after integrator.t_start = {integrator.t_start:g}"
        )
    if integrator.min_step > integrator.max_step:
        raise ValueError(
            f"integrator.min_step = {integrator.min_step:g} is above integrator.max_step = "
            f"{integrator.max_step:g}: lower the first, or raise the second"
        )
    return integrator


def without_implicit_steps(config) -> tuple[str, tuple, Any] | None:
    """The first key whose value implicit steps do not support, the values that they do, and its value, or None.

    They have two kinds of solvers, and points that do not follow the residual of a velocity.
    """
    others = {
        "solver.method": (config.solver.method, ("auto", "primal", "pcg")),
        "solver.precision": (config.solver.precision, ("float64",)),
        "solver.norm": (config.solver.norm, ("auto", "field")),
        "solver.equal_shares": (config.solver.equal_shares, (False,)),
        "sampling.method": (config.sampling.method, ("auto", "uniform", "density", "solution")),
        "network.form": (config.network.form, ("auto", "direct")),
    }
    for key, (value, possible) in others.items():
        if value not in possible:
            return key, possible, value
    return None


def implicit_steps_are_supported(config):
    """All other settings suit implicit steps, where all steps are to be implicit."""
    if config.integrator.implicit and (odd := without_implicit_steps(config)) is not None:
        key, possible, value = odd
        choices = " or ".join(repr(each) for each in possible)
        raise ValueError(
            f"integrator.method = {config.integrator.method!r} needs {key} = {choices}, and it is {value!r}: "
            "set that, or an explicit method"
        )


def fixed_order_is_supported(config):
    """cluster.reproducible does not stand beside a solver whose sums have no fixed order."""
    for key, given in {
        "solver.method = 'dual_pcg'": config.solver.method == "dual_pcg",
        "implicit steps with solver.method = 'pcg'": config.integrator.implicit and config.solver.method == "pcg",
        "solver.shard_vectors = true": config.solver.shard_vectors,
    }.items():
        if config.cluster.reproducible and given:
            raise ValueError(f"cluster.reproducible = true does not support {key}: leave one of them out")


def sections_agree(config):
    """Output times lie within the run, every quadratic form has a component to start from, and implicit steps and sums
    in a fixed order are taken with what they support."""
    implicit_steps_are_supported(config)
    fixed_order_is_supported(config)
    gaussians, components = config.network.gaussians, config.sampling.components
    if components != "auto" and gaussians not in (0, 1, components, "auto"):
        raise ValueError(
            f"network.gaussians = {gaussians}, but sampling.components = {components}: the quadratic forms start from "
            "the components, set both alike"
        )
    t_start, t_end, every = config.integrator.t_start, config.integrator.t_end, config.output.every
    if outside := [t for t in config.output.times if not t_start <= t <= t_end]:
        start = f"integrator.t_start = {t_start}" if t_start else "0"
        raise ValueError(f"output.times must lie in [{start}, integrator.t_end = {t_end}], got {outside}")
    if every is not None and (t_end - t_start) / every > MOST_OUTPUTS:
        raise ValueError(
            f"output.every = {every:g} makes more than {MOST_OUTPUTS} outputs by integrator.t_end = {t_end:g}: raise it"
        )
    return config


def settings_for_accuracy(accuracy: float) -> dict[str, dict[str, Any]]:
    """The settings that follow from a relative L2 error asked for: section -> key -> value.

    Steps become implicit where that costs less. From the problem and accuracy = 1e-3 alone, explicit ones took
    Kuramoto-Sivashinsky's equation to t = 0.19 of 4 in seven minutes.
    """
    return {
        "sampling": {"method": "auto", "components": "auto"},
        "solver": {"mu": "auto", "norm": "auto"},
        "integrator": {"rtol": accuracy / 20, "method": "auto"},
        "fit": {"target": 5 * accuracy, "stop_at": accuracy / 100, "line_search": True},
        "restart": {"bound": accuracy},
    }


def fill_in_from_accuracy(data):
    """A configuration before its validation, with the settings that follow from its accuracy where they are not set."""
    accuracy = data.get("accuracy") if isinstance(data, dict) else None
    if not isinstance(accuracy, float) or not 0 < accuracy < 1:
        return data  # no accuracy is asked for, or a wrong one, which the validation of its field reports
    filled = dict(data)
    for section, values in settings_for_accuracy(accuracy).items():
        given = filled.get(section, {})
        if isinstance(given, dict):
            filled[section] = values | given
    return filled
