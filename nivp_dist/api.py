"""Runs from Python: ``solve`` starts one, ``open_run`` reads one, finished or not."""

import contextlib
from pathlib import Path

from nivp_dist.errors import InputError
from nivp_dist.problems.base import Problem
from nivp_dist.problems.registry import SHIPPED, load
from nivp_dist.run.stored import Run, open_run, recorded
from nivp_dist.settings.files import RECORD, name_of, read_config, resolve_problem_file
from nivp_dist.settings.model import Config
from nivp_dist.settings.validation import validate
from nivp_dist.storage import run_directory
from nivp_dist.storage.lock import hold
from nivp_dist.storage.metrics import plain


def solve(
    config: Config | dict | str | Path,
    *,
    problem: Problem | None = None,
    directory: str | Path | None = None,
    quiet: bool = False,
) -> Run:
    """Fit the initial condition, evolve it to ``integrator.t_end``, and open the finished run.

    Args:
        config: a Config, a dictionary of its sections, a TOML file, or the name of a shipped configuration.
        problem: an instance of your own Problem class, in place of the configuration's [problem] section. The run
            directory records only the name of its class and its parameters: pass the instance to ``open_run`` too.
        directory: the run directory, new or empty. Default: runs/NAME-NUMBER in the working directory.
        quiet: print nothing.

    Raises:
        InputError: bad input; it is found before anything large is compiled.
        RunFailed: the run cannot continue; the message says why and what to try.
        RunStopped: a signal has stopped the run, after a checkpoint.
    """
    import jax

    from nivp_dist.backend.mesh import make_mesh
    from nivp_dist.cluster.control import from_process_zero
    from nivp_dist.problems import checks
    from nivp_dist.report import draw_pictures
    from nivp_dist.report.progress import Reporter
    from nivp_dist.run import controller
    from nivp_dist.run.reporter import SilentReporter

    resolved, name = _resolve(config, problem)
    own = {} if problem is None else {"problem": problem}
    make_mesh(resolved.devices)
    checks.check(problem or load(resolved.problem), resolved.problem.file or f"problem {resolved.problem.name}")
    path = Path(from_process_zero(lambda: str(run_directory.create(resolved, directory, name))))
    first = jax.process_index() == 0
    with SilentReporter() if quiet or not first else Reporter() as reporter:
        # The run computes what its directory says, which is what a resume will read.
        record = read_config(path / RECORD)
        try:
            with hold(path) if first else contextlib.nullcontext():
                controller.evolve(record, path, resume=False, reporter=reporter, draw_pictures=draw_pictures, **own)
        except InputError:
            if first:  # the run was refused before it began
                run_directory.discard(path)
            raise
    return open_run(path, problem)


def _resolve(config: Config | dict | str | Path, problem: Problem | None) -> tuple[Config, str]:
    """The validated settings, and the name of the default run directory. Raises InputError."""
    if problem is not None:
        if not isinstance(problem, Problem):
            raise InputError(f"problem must be an instance of a Problem class, got {problem!r}: problem=MyProblem(...)")
        if type(problem).__name__ in SHIPPED:
            raise InputError(f"the class {type(problem).__name__} has the name of a shipped problem: rename it")
    own = None if problem is None else recorded(problem)
    name = None
    if isinstance(config, Config):
        resolved = config
    elif isinstance(config, dict):
        data = plain(config) | ({"problem": {"name": own.name}} if own else {})
        resolve_problem_file(data, Path.cwd())
        resolved = validate(data, "config", {})
    elif isinstance(config, str | Path):
        override = {"problem.name": own.name} if own and own.name else None
        resolved, name = read_config(config, override), name_of(config)
    else:
        raise InputError(f"config must be a Config, a dict, a path or a name, got {type(config).__name__}")
    if own:
        resolved = resolved.model_copy(update={"problem": own})
    return resolved, name or resolved.problem.name or Path(resolved.problem.file or "run").stem
