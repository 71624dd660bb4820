"""The command line, `nivp`: run, resume, submit, sweep, study, status, watch, plot, compare, export, problems, doctor,
guide, bench.

Importing this module does not import jax, so that `nivp status` and the message about a mistake appear at once. Every
mistake of the user is one line on standard error; the exit codes are those of ``nivp_dist.errors``.
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

from nivp_dist import __version__
from nivp_dist.batch.submit import submit
from nivp_dist.bench.command_line import bench, check_for_gpus
from nivp_dist.cluster import session, signals, topology
from nivp_dist.cluster.channel import may_be_consequence
from nivp_dist.cluster.logs import screen_of_errors
from nivp_dist.errors import BAD_INPUT, FAILED, FINISHED, STOPPED_EARLY, InputError, RunFailed, RunStopped
from nivp_dist.export.command_line import export
from nivp_dist.report.command_line import compare, plot, watch
from nivp_dist.settings.command_line import split
from nivp_dist.settings.files import name_of, read_config, resume_config, shipped_configs
from nivp_dist.settings.model import ClusterSettings, Config
from nivp_dist.storage import run_directory
from nivp_dist.studies.command_line import size, study, sweep

# Seconds that a process other than 0 waits before it prints a mistake, which process 0 has most likely made too and
# prints: srun and launch/local end the others within five seconds of the first exit.
WAIT_FOR_PROCESS_ZERO = 8.0
# Objects made before Python looks for garbage (its own threshold is 700 to 2,000). Tracing makes millions of objects
# that stay alive, and looking through them took 7 % of a short run.
GARBAGE_THRESHOLD = 50_000
_WITH_OVERRIDES = {"ignore_unknown_options": True}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def nivp():
    """Evolve a neural network as the solution of a PDE, from a configuration file to a checked result."""


@nivp.command(context_settings=_WITH_OVERRIDES, epilog="Example: nivp run fokker_planck_trap_5d --integrator.t_end 0.5")
@click.option("--output", metavar="DIR", help="The run directory, new or empty. Default: runs/NAME-NUMBER.")
@click.option("--resume-if-present", is_flag=True, help="Continue the run in DIR, if it holds one.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="CONFIG [--section.key value]...")
def run(output, resume_if_present, arguments):
    """Start a run.

    CONFIG is a TOML file, or the name of a shipped configuration (`nivp problems` lists them).
    """
    source, overrides = split(arguments, "CONFIG")
    notes: list[str] = []
    config = read_config(source, overrides, notes.append)
    _join_group(config, notes)

    from nivp_dist.run import launch

    if resume_if_present:
        if (known := output or config.output.directory) is None:
            raise InputError("--resume-if-present needs the directory of the run: --output DIR")
        if launch.is_present(known):
            directory = Path(known).expanduser().resolve()
            launch.resume(directory, *launch.continuation(directory, config), _view())
            return
    launch.start(config, output, name_of(source), _view())


@nivp.command(context_settings=_WITH_OVERRIDES, epilog="Example: nivp resume runs/heat-001 --integrator.t_end 2")
@click.option(
    "--patience",
    type=click.FloatRange(0),
    default=0.0,
    metavar="SECONDS",
    help="How long to wait for another process that holds DIR. Default: 0.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="DIR [--section.key value]...")
def resume(patience, arguments):
    """Continue the run in DIR from its newest checkpoint.

    Settings that would change the result are refused; `nivp guide files` lists those that may change.
    """
    directory, overrides = split(arguments, "DIR")
    notes: list[str] = []
    config = resume_config(directory, overrides, notes.append)
    if "integrator.t_end" in overrides:
        run_directory.require_not_beyond(directory, config.integrator.t_end)
    _join_group(config, notes)

    from nivp_dist.run import launch

    launch.resume(Path(directory).resolve(), config, bool(overrides), _view(), patience)


nivp.add_command(submit)
nivp.add_command(sweep)
nivp.add_command(study)


class _Status(click.Command):
    """Takes a number of seconds after --watch only if one follows: click alone would take the directory for it."""

    def parse_args(self, context, arguments):
        for i, argument in enumerate(arguments):
            if argument == "--watch" and not re.fullmatch(r"[\d.]+", "".join(arguments[i + 1 : i + 2])):
                arguments = [*arguments[:i], "--watch=2", *arguments[i + 1 :]]
        return super().parse_args(context, arguments)


@nivp.command(cls=_Status, epilog="Example: nivp status runs/heat-001 --watch 10")
@click.argument("directory", metavar="DIR")
@click.option(
    "--watch",
    type=click.FloatRange(0.1),
    metavar="[SECONDS]",
    help="Follow the run until it ends, looking every SECONDS. Default: 2.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def status(directory, watch, as_json):
    """Show where the run in DIR stands, from any host that sees DIR."""
    from nivp_dist.report.follow import follow
    from nivp_dist.report.status_text import status_text

    if watch is None:
        click.echo(status_text(directory, as_json))
    else:
        follow(directory, sys.stdout, watch, as_json)


for command in (watch, plot, compare, export):
    nivp.add_command(command)


@nivp.command()
def problems():
    """List the shipped problems and configurations."""
    from nivp_dist.report import catalogue

    for line in [*catalogue.problems(), "", "", *catalogue.configurations(shipped_configs())]:
        click.echo(line)


@nivp.command(context_settings=_WITH_OVERRIDES, epilog="Example: nivp doctor --directory runs")
@click.option("--directory", default=".", metavar="DIR", help="Where runs would be written. Default: here.")
@click.option("--compile-for", metavar="GPU", help="h100 or h200: compile CONFIG for such GPUs; none is needed.")
@click.option("--gpus", type=click.IntRange(1), default=8, metavar="N", help="How many of them. Default: 8.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[CONFIG [--section.key value]...]")
def doctor(directory, compile_for, gpus, arguments):
    """Check this machine or cluster, or a run for GPUs that are not here.

    Examines processes, devices, interconnect and files, alone or under srun, mpirun, launch/local. With --compile-for
    it compiles the programs of a run instead, and shows their memory on a GPU and what the GPUs send each other.

    Exit status: 0 if a run would work, 1 if something would break it.
    """
    if compile_for is not None:
        return check_for_gpus(compile_for, gpus, *split(arguments, "CONFIG"))
    if arguments:
        raise InputError(f"command line: {arguments[0]} is for --compile-for alone")
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


@nivp.command(epilog="Example: nivp guide settings")
@click.argument("topic", required=False)
def guide(topic):
    """Print a chapter of the manual, or the list of topics."""
    from nivp_dist import guide

    if topic is None:
        width = max(map(len, guide.TOPICS))
        for name, sentence in guide.summaries().items():
            click.echo(f"{name.ljust(width)}  {sentence}")
        return
    content = guide.text(topic)
    if sys.stdout.isatty():
        from rich.markdown import Markdown

        Console().print(Markdown(content))
    else:
        click.echo(content, nl=False)


bench.add_command(size)
nivp.add_command(bench)


def _join_group(config: Config, notes: list[str]) -> None:
    """Connect to the other processes of the run. Process 0 prints the notes."""
    signals.remember_early_signals()
    session.connect(config.cluster)
    if session.current().topology.index == 0:
        for note in notes:
            _print_line(note)


def _view():
    from nivp_dist.report import draw_pictures
    from nivp_dist.report.progress import Reporter
    from nivp_dist.run.launch import View

    return View(Reporter, draw_pictures, session.current().part)


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code. One process that fails ends its whole group."""
    _open_closed_streams()
    gc.set_threshold(GARBAGE_THRESHOLD)
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
        return _stop(str(error))
    except RunFailed as error:
        return _fail(str(error), FAILED)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", FAILED)
    except Exception as error:  # noqa: BLE001  a defect of this package, shown as a whole
        return _report_defect(error)


def _open_closed_streams() -> None:
    """Open /dev/null in the place of a closed standard stream (`nivp run x >&-`).

    Otherwise a file of the run would get the number of the stream, and libraries would print into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            handle = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            os.set_inheritable(handle, True)
            setattr(sys, name, os.fdopen(handle, mode, closefd=False))


def _stop(message: str) -> int:
    """The end of a run that was stopped on request, which all processes reach."""
    return session.current().leave(STOPPED_EARLY, message)


def _report_defect(error: Exception) -> int:
    """Write the traceback to this process's log, and to the screen unless another process has failed first."""
    consequence = session.current().group is not None and may_be_consequence(error)
    session.current().write_log(traceback.format_exc())
    if not consequence:
        # One write that does not go through Python's buffer: the group may print its last line at the same moment.
        os.write(screen_of_errors(), traceback.format_exc().encode())
    return _fail(f"{type(error).__name__}: {error}", FAILED, consequence)


def _fail(message: str, code: int, consequence: bool = False) -> int:
    session.current().fail(message, code, consequence)  # does not return if there are other processes
    with contextlib.suppress(InputError):
        # The processes have not met. Most mistakes are made by all of them, and process 0 prints it; then its launcher
        # ends the others. mpirun does that for programs of MPI only.
        if (place := topology.detect()).index and place.launcher != "mpirun":
            time.sleep(WAIT_FOR_PROCESS_ZERO)
    _print_line(message)
    return code


def _print_line(message: str) -> None:
    sys.stderr.write(f"nivp: {' '.join(message.split())}\n")  # one write, so that lines of several programs stay whole


if __name__ == "__main__":
    sys.exit(main())
