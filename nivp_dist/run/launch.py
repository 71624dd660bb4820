"""A run is started or continued in this group of processes: its directory is made, held, written to, and let go.

The command line (``nivp run``, ``nivp resume``) and Python (``nivp_dist.solve``, ``nivp_dist.resume``) both come here.

Every process calls the functions here, in the same order; process 0 alone touches the run directory.
"""

import contextlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from nivp_dist.backend import float64_rate
from nivp_dist.backend.mesh import make_mesh
from nivp_dist.callbacks import Callback, loading
from nivp_dist.cluster import logs, session, startup_checks
from nivp_dist.cluster.control import from_process_zero, require_visible
from nivp_dist.errors import InputError, RunFailed, RunStopped
from nivp_dist.problems import checks, registry
from nivp_dist.problems.base import Problem
from nivp_dist.run.settled import found
from nivp_dist.run.stored import session_class
from nivp_dist.settings import files
from nivp_dist.settings.automatic import with_found
from nivp_dist.settings.files import RECORD, read_config
from nivp_dist.settings.model import ClusterSettings, Config
from nivp_dist.storage import callback_copy, network_copy, problem_copy, run_directory
from nivp_dist.storage.lock import hold, in_use


class View(NamedTuple):
    """How a run is shown, and what its processes do at its end.

    reporter: () -> a context manager, see ``SilentReporter``. draw_pictures, part: see ``run.ending``; by default the
    processes stay together after the run, as those of a script have to. callbacks: instances of a Python session.
    """

    reporter: Callable
    draw_pictures: Callable
    part: Callable[[], None] = lambda: None
    callbacks: Sequence[Callback] = ()


def start(config: Config, output: str | Path | None, name: str, view: View, problem: Problem | None = None) -> Path:
    """A new run. Returns its directory when the run has finished.

    output: its directory, or None; name: of the default directory. problem: an instance in place of config.problem.
    Raises InputError, and leaves no directory behind, if the run is refused before it begins; else as ``evolve``.
    """
    warnings = _check(config, problem, view.callbacks)
    config = _settled(config, problem)
    directory = _make_directory(config, output, name)
    with _held(directory, config.cluster):
        _warn(warnings)
        try:
            problem_copy.require_unchanged(directory)  # on every host: modules from elsewhere may differ there
            # The run computes what its directory says, which is what a resume will read.
            _evolve(read_config(directory / RECORD), directory, False, view, problem)
        except InputError:
            if _is_first():
                run_directory.discard(directory)
            raise
    return directory


def is_present(directory: str | Path) -> bool:
    """Whether a directory holds a run that can be continued. Collective: process 0 looks."""
    return from_process_zero(lambda: "yes" if run_directory.holds_run(directory) else "") == "yes"


def continuation(directory: Path, wanted: Config) -> tuple[Config, bool]:
    """As ``settings.files.continuation``; modules and data of the user's problem and network may not have changed
    either."""
    found = files.continuation(directory, callback_copy.reuse(wanted, directory))
    kept, now = problem_copy.recorded(directory), problem_copy.table(registry.files_of(wanted.problem))
    now |= network_copy.table(wanted)
    if changed := [name for name in kept | now if kept.get(name) != now.get(name)]:
        mend = "undo the change, or choose another directory"
        raise InputError(f"{directory}: holds a run with other contents of {changed[0]}: it cannot go on; {mend}")
    return found


def resume(
    directory: Path, config: Config, changed: bool, view: View, patience: float = 0.0, problem: Problem | None = None
) -> None:
    """The run in a directory, from its newest checkpoint.

    changed: whether the configuration differs from the recorded one, which it then replaces.
    patience: seconds to wait for another process that holds the directory. problem: as in ``start``, which also says
    what is raised.
    """
    run_directory.require_text(directory)
    problem_copy.require_unchanged(directory)
    warnings = _check(config, problem, view.callbacks)
    with _held(directory, config.cluster, patience):
        _warn(warnings)
        before = (directory / RECORD).read_bytes()
        if changed:
            file = from_process_zero(lambda: run_directory.record_config(directory, config))
            config = callback_copy.with_file(config, file) if file else config
        try:
            _evolve(config, directory, True, view, problem)
        except InputError:
            if changed and _is_first():  # the run refused the new settings, and the next resume needs the old ones
                run_directory.restore_config(directory, before)
            raise


def _check(config: Config, problem: Problem | None, callbacks: Sequence[Callback]) -> list[str]:
    """Find mistakes in the devices, the problem and the callbacks before anything large is compiled. Collective.

    Returns warnings. Raises InputError.
    """
    startup_checks.require_same_configuration(config)
    slow = float64_rate.warning(make_mesh(config.devices).devices.flat)
    source = config.problem.file or f"problem {config.problem.name}"
    problem = problem or registry.load(config.problem)
    loading.check([*loading.load(config.callbacks), *callbacks], problem)
    found = checks.check(problem, source, config.integrator.t_start, config.integrator.t_end)
    return [*found, slow] if slow and config.solver.precision == "float64" else found


def _settled(config: Config, problem: Problem | None) -> Config:
    """``run.settled``, as process 0 finds it: another kind of processor may round differently. Collective."""
    find = lambda: json.dumps(found(config, problem or registry.load(config.problem)))  # noqa: E731
    return with_found(config, json.loads(from_process_zero(find)))


def _warn(warnings: list[str]) -> None:
    """Write warnings into the log of this process and, on process 0, to the screen."""
    for warning in warnings:
        logging.getLogger(__name__).warning("%s", warning)


def _is_first() -> bool:
    return session.current().topology.index == 0


def _make_directory(config: Config, output: str | Path | None, name: str) -> Path:
    def create() -> str:
        return str(run_directory.create(config, output, name, registry.files_of(config.problem)))

    directory = Path(from_process_zero(create))
    try:
        require_visible(directory / RECORD)
    except InputError:
        if _is_first():
            run_directory.discard(directory)
        raise
    return directory


@contextlib.contextmanager
def _held(directory: Path, settings: ClusterSettings, patience: float = 0.0):
    """Process 0 holds the directory against other runs; every process writes its log there, and has a deadline."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(logs.screen(_is_first()))

        def take() -> str:
            if patience and in_use(directory):
                logging.getLogger(__name__).warning("%s is in use: waiting for up to %g s", directory, patience)
            stack.enter_context(hold(directory, patience))
            return ""

        from_process_zero(take)
        stack.enter_context(session.current().open_log(directory).warnings())
        stack.enter_context(session.current().watched(settings))
        yield


def _evolve(config: Config, directory: Path, resumed: bool, view: View, problem: Problem | None) -> None:
    from nivp_dist.run import controller
    from nivp_dist.run.ending import Ending

    try:
        with view.reporter() as reporter:
            controller.evolve(
                config,
                directory,
                resume=resumed,
                reporter=reporter,
                problem=problem,
                callbacks=view.callbacks,
                ending=Ending(view.draw_pictures, view.part),
            )
    except KeyboardInterrupt:
        if run_directory.has_checkpoint(directory):
            command = run_directory.resume_command(directory, session_class(config.problem))
            raise RunStopped(f"interrupted; to go on from the last checkpoint: {command}") from None
        raise RunFailed(f"interrupted before the first checkpoint; {directory} cannot be resumed") from None
