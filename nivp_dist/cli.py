"""The command line: `nivp run | resume | submit | status | plot | problems | doctor | bench`.

Importing this module does not import jax. Every mistake of the user is one line on stderr; exit codes are those of
``nivp_dist.errors``.
"""

import contextlib
import gc
import os
import re
import sys
import time
import traceback
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from nivp_dist import __version__
from nivp_dist.batch.submit import submit
from nivp_dist.cluster import logs, session, signals, topology
from nivp_dist.cluster.channel import is_echo
from nivp_dist.errors import BAD_INPUT, FAILED, FINISHED, STOPPED_EARLY, InputError, RunFailed, RunStopped
from nivp_dist.settings.command_line import split
from nivp_dist.settings.files import RECORD, describe_config, read_config, resume_config, shipped_configs
from nivp_dist.settings.model import ClusterSettings, Config
from nivp_dist.storage import run_directory

UNHEARD = 8.0  # seconds that a mistake waits for the same one of process 0; launchers end the others within five
_WITH_OVERRIDES = {"ignore_unknown_options": True}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def nivp():
    """Evolve a neural network as the solution of a PDE, from a configuration file to a checked result."""


@nivp.command(context_settings=_WITH_OVERRIDES, epilog="Example: nivp run fokker_planck_trap_5d --integrator.t_end 0.5")
@click.option("--output", metavar="DIR", help="The run directory, new or empty. Default: runs/NAME-NUMBER.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="CONFIG [--section.key value]...")
def run(output, arguments):
    """Start a run from CONFIG, a TOML file or the name of a shipped configuration (`nivp problems`)."""
    source, overrides = split(arguments, "CONFIG")
    config = read_config(source, overrides)
    signals.heed()
    session.connect(config.cluster)
    _check(config)

    from nivp_dist.cluster.control import from_process_zero, require_visible

    make = lambda: str(run_directory.create(config, output, Path(source).stem))  # noqa: E731
    directory = Path(from_process_zero(make))
    try:
        require_visible(directory / RECORD)
    except InputError:
        if session.current().topology.index == 0:
            run_directory.discard(directory)
        raise
    # From here on the run is what its directory says: exactly what a resume will read.
    _evolve(read_config(directory / RECORD), directory, resume=False)


@nivp.command(context_settings=_WITH_OVERRIDES, epilog="Example: nivp resume runs/heat-001 --integrator.t_end 2")
@click.option("--patience", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="Wait for a lock so long.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="DIR [--section.key value]...")
def resume(patience, arguments):
    """Continue the run in DIR from its newest checkpoint. Keys that decide the result cannot change."""
    directory, overrides = split(arguments, "DIR")
    config = resume_config(directory, overrides)
    signals.heed()
    session.connect(config.cluster)
    _check(config)
    _evolve(config, Path(directory).resolve(), resume=True, record=bool(overrides), patience=patience)


nivp.add_command(submit)


class _Watch(click.Command):
    """--watch takes a number of seconds if one follows: click alone would take the directory for it."""

    def parse_args(self, context, arguments):
        for i, argument in enumerate(arguments):
            if argument == "--watch" and not re.fullmatch(r"[\d.]+", "".join(arguments[i + 1 : i + 2])):
                arguments = [*arguments[:i], "--watch=2", *arguments[i + 1 :]]
        return super().parse_args(context, arguments)


@nivp.command(cls=_Watch, epilog="Example: nivp status runs/heat-001 --watch 10")
@click.argument("directory")
@click.option("--watch", type=click.FloatRange(0.1), metavar="[SECONDS]", help="Follow the run until it ends.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def status(directory, watch, as_json):
    """Show where the run in DIR stands; from any host that sees its directory."""
    from nivp_dist.report import status

    if watch is None:
        click.echo(status.text(directory, as_json))
    else:
        status.watch(directory, sys.stdout, watch, as_json)


@nivp.command()
@click.argument("directory")
def plot(directory):
    """Draw the pictures of the run in DIR and print where they are."""
    run_directory.read_summary(directory)  # refuses what is no run
    from nivp_dist.report import pictures

    for path in pictures.draw(Path(directory)):
        click.echo(path)


@nivp.command()
def problems():
    """List the shipped problems and configurations."""
    from nivp_dist.problems import registry
    from nivp_dist.problems.base import has_reference

    rows = registry.catalogue()
    table = Table(title="Problems (problem.name)", title_justify="left")
    for column in ("name", "d", "outputs", "equation", "reference"):
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "d"))
    for row in rows:
        table.add_row(row.name, str(row.dimension), str(row.outputs), row.summary, row.reference)
    Console().print(table)

    kinds = {row.name: row.reference for row in rows}
    table = Table(title="Configurations (nivp run NAME)", title_justify="left")
    for column in ("name", "d", "time", "error", "what", "reference"):
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "d"))
    for name, path in shipped_configs().items():
        config = read_config(path)
        problem = registry.load(config.problem)
        reference = kinds.get(config.problem.name, "yes") if has_reference(problem) else "none"
        described = describe_config(path)
        dimension = str(problem.domain.dimension)
        table.add_row(name, dimension, described.time, described.error, described.what, reference)
    Console().print(table)


@nivp.command()
@click.option("--directory", default=".", metavar="DIR", help="Where runs would be written. Default: here.")
def doctor(directory):
    """Look at processes, devices, interconnect and files, alone or under srun, mpirun, launch/local.

    Exit status: 0 if a run would work here, 1 if something would break it.
    """
    try:
        here = session.connect(ClusterSettings(), check=False)
    except InputError as error:
        raise RunFailed(f"problem: {error}") from None

    from nivp_dist.cluster import doctor as doctor_

    report = doctor_.examine(directory)
    if here.topology.index == 0:
        for line in doctor_.lines(report):
            click.echo(line)
    return FAILED if report.problems else FINISHED


@nivp.group()
def bench():
    """Measure the package on this machine, side by side with the published method."""


@bench.command(epilog="Example: nivp bench speed products laplacian --quick --output speed.json")
@click.argument("sections", nargs=-1)
@click.option("--output", metavar="FILE", help="A new JSON file, kept up to date section by section.")
@click.option("--quick", is_flag=True, help="A smaller grid and small problems: a minute or two.")
@click.option("--profile", metavar="DIR", help="Where the section gpu leaves its trace. Default: trace.")
def speed(sections, output, quick, profile):
    """Time SECTIONS: products velocity fit end_to_end scaling laplacian (default: all of these), gpu."""
    from nivp_dist.bench import speed

    speed.run(sections, output, quick, profile, click.echo)


@bench.command(epilog="Example: nivp bench accuracy 'wave*' heat_2d --output sheet")
@click.argument("names", nargs=-1)
@click.option(
    "--output", metavar="DIR", default="accuracy", help="Runs and accuracy.json; finished runs there are read."
)
@click.option("--markdown", is_flag=True, help="Print the table of the README.")
@click.option("--list", "list_", is_flag=True, help="Print the rows with their commands; run nothing.")
def accuracy(names, output, markdown, list_):
    """Run the rows of the score sheet called NAMES (default: all) and print their errors beside what is asked."""
    from nivp_dist.bench import accuracy

    if list_:
        for row in accuracy.select(names):
            click.echo(f"{row.name}: {accuracy.command(row)}")
        return FINISHED
    sheet = accuracy.run(names, output, click.echo)
    for line in accuracy.markdown(sheet) if markdown else accuracy.lines(sheet):
        click.echo(line)
    return FAILED if any(row["failed"] for row in sheet["rows"]) else FINISHED


def _check(config: Config) -> None:
    """All that can be found wrong before anything large is compiled."""
    from nivp_dist.backend.mesh import make_mesh
    from nivp_dist.problems import checks, registry

    make_mesh(config.devices)
    checks.check(registry.load(config.problem), config.problem.file or f"problem {config.problem.name}")


def _evolve(config: Config, directory: Path, resume: bool, record: bool = False, patience: float = 0.0) -> None:
    from nivp_dist.cluster.control import from_process_zero
    from nivp_dist.report import draw_pictures
    from nivp_dist.report.progress import Reporter
    from nivp_dist.run import controller

    first = session.current().topology.index == 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(logs.screen(first))

        def hold() -> str:
            if patience and run_directory.in_use(directory):
                _say(f"{directory} is in use: waiting for up to {patience:g} s", FINISHED)
            stack.enter_context(run_directory.lock(directory, patience))
            return ""

        from_process_zero(hold)
        stack.enter_context(session.current().open_log(directory).warnings())
        before = (directory / RECORD).read_bytes()
        if record:
            from_process_zero(lambda: run_directory.record_config(directory, config) or "")
        try:
            with Reporter() as reporter:
                controller.evolve(config, directory, resume=resume, reporter=reporter, draw_pictures=draw_pictures)
        except InputError:
            if first:
                if record:  # the controller refused the new settings: the next resume must find the old ones
                    run_directory.restore_config(directory, before)
                elif not resume:  # refused before it began: leave nothing behind
                    run_directory.discard(directory)
            raise
        except KeyboardInterrupt:
            if run_directory.has_checkpoint(directory):
                raise RunStopped(f"interrupted; `nivp resume {directory}` goes on from the last checkpoint") from None
            raise RunFailed(f"interrupted before the first checkpoint; {directory} cannot be resumed") from None


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code. One process that fails ends its whole group."""
    # Tracing makes objects by the million that live long: to look through them so often was 7 % of a short run.
    gc.set_threshold(50_000)
    try:
        code = nivp.main(args=arguments, prog_name="nivp", standalone_mode=False) or FINISHED
        return session.current().leave(code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        return BAD_INPUT
    except click.ClickException as error:
        return _fail(error.format_message(), BAD_INPUT)
    except InputError as error:
        return _fail(str(error), BAD_INPUT)
    except RunStopped as error:
        code = session.current().leave(STOPPED_EARLY)
        return _say(str(error), STOPPED_EARLY) if session.current().topology.index == 0 else code
    except RunFailed as error:
        return _fail(str(error), FAILED)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", FAILED)
    except Exception as error:  # noqa: BLE001  a defect of ours: all of it on the screen
        echo = session.current().group is not None and is_echo(error)
        session.current().say(traceback.format_exc())
        if not echo:
            # One write, past Python's buffer: the group may say its last line at the same moment.
            os.write(2, traceback.format_exc().encode())
        return _fail(f"{type(error).__name__}: {error}", FAILED, echo)


def _fail(message: str, code: int, echo: bool = False) -> int:
    session.current().fail(message, code, echo)  # does not return if there are others
    with contextlib.suppress(InputError):
        # Not met yet, and most mistakes are everybody's: process 0 says it, and its launcher ends the others (mpirun
        # does that for programs of MPI only).
        if (place := topology.detect()).index and place.launcher != "mpirun":
            time.sleep(UNHEARD)
    return _say(message, code)


def _say(message: str, code: int) -> int:
    sys.stderr.write(f"nivp: {' '.join(message.split())}\n")  # one write: lines of several programs stay whole
    return code


if __name__ == "__main__":
    sys.exit(main())
