"""The command line: `nivp run | resume | status | plot | problems`.

Importing this module does not import jax. Every mistake of the user is one line on stderr; exit codes are those of
``nivp_dist.errors``.
"""

import contextlib
import json
import os
import re
import sys
import traceback
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from nivp_dist import __version__
from nivp_dist.cluster import topology
from nivp_dist.config import Config
from nivp_dist.errors import BAD_INPUT, FAILED, FINISHED, STOPPED_EARLY, InputError, RunFailed, RunStopped
from nivp_dist.settings_io import RECORD, read_config, resume_config, shipped_configs
from nivp_dist.storage import metrics, run_directory

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
    (source,), overrides = _split(arguments, "CONFIG")
    config = read_config(source, overrides)
    processes = topology.detect()
    topology.initialise(processes)
    _check(config)

    from nivp_dist.cluster.control import from_process_zero

    make = lambda: str(run_directory.create(config, output, Path(source).stem))  # noqa: E731
    directory = Path(from_process_zero(make))
    # From here on the run is what its directory says: exactly what a resume will read.
    _evolve(read_config(directory / RECORD), directory, resume=False)


@nivp.command(context_settings=_WITH_OVERRIDES, epilog="Example: nivp resume runs/heat-001 --integrator.t_end 2")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="DIR [--section.key value]...")
def resume(arguments):
    """Continue the run in DIR from its newest checkpoint. Keys that decide the result cannot change."""
    (directory,), overrides = _split(arguments, "DIR")
    config = resume_config(directory, overrides)
    processes = topology.detect()
    topology.initialise(processes)
    _check(config)
    _evolve(config, Path(directory).resolve(), resume=True, record=bool(overrides))


@nivp.command()
@click.argument("directory")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def status(directory, as_json):
    """Show where the run in DIR stands."""
    summary = run_directory.read_summary(directory) or {}
    last = metrics.last_line(Path(directory) / metrics.METRICS) or {}
    events = metrics.read_lines(Path(directory) / metrics.EVENTS)[-3:]
    held = run_directory.in_use(directory)
    state = summary.get("status", "running" if held else "not started")
    if state == "running" and not held:
        state = "interrupted"
    if as_json:
        click.echo(json.dumps({"status": state, "summary": summary, "last_step": last, "events": events}, indent=2))
        return
    from nivp_dist.report.tables import status_lines

    for line in status_lines(summary | {"status": state}, last, events):
        click.echo(line)
    if state in ("interrupted", "stopped") and run_directory.has_checkpoint(directory):
        click.echo(f"to go on: nivp resume {directory}")


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
    for column in ("name", "d", "time", "what", "reference"):
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "d"))
    for name, path in shipped_configs().items():
        config = read_config(path)
        problem = registry.load(config.problem)
        reference = kinds.get(config.problem.name, "yes") if has_reference(problem) else "none"
        what, time = describe_config(path)
        table.add_row(name, str(problem.domain.dimension), time, what, reference)
    Console().print(table)


def describe_config(path: Path) -> tuple[str, str]:
    """The first comment line of a configuration, and its expected run time from a line '# time: 3 min'."""
    comments = [line.lstrip("# ").strip() for line in path.read_text().splitlines() if line.startswith("#")]
    times = [match[1] for line in comments if (match := re.match(r"time:\s*(.+)", line))]
    what = [line for line in comments if line and not line.startswith("time:")]
    return what[0] if what else "", times[0] if times else ""


def _split(arguments: tuple[str, ...], name: str) -> tuple[list[str], dict[str, str]]:
    """The one positional argument, and the overrides: '--key value' or '--key=value'."""
    positional, overrides, rest = [], {}, list(arguments)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--"):
            positional.append(token)
            continue
        key, equals, value = token[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise InputError(f"command line: --{key} needs a value")
            value = rest.pop(0)
        if key in overrides:
            raise InputError(f"command line: --{key} is given twice")
        overrides[key] = value
    if not positional:
        raise InputError(f"command line: {name} is missing; see nivp --help")
    if len(positional) > 1:
        found = " ".join(positional)
        raise InputError(f"command line: one {name} expected, got {found}; options are --section.key value")
    return positional, overrides


def _check(config: Config) -> None:
    """All that can be found wrong before anything large is compiled."""
    from nivp_dist.cluster.mesh import make_mesh
    from nivp_dist.problems import checks, registry

    make_mesh(config.devices)
    checks.check(registry.load(config.problem), config.problem.file or f"problem {config.problem.name}")


def _evolve(config: Config, directory: Path, resume: bool, record: bool = False) -> None:
    from nivp_dist import controller
    from nivp_dist.cluster.control import from_process_zero
    from nivp_dist.report.progress import Reporter

    with contextlib.ExitStack() as stack:

        def hold() -> str:
            stack.enter_context(run_directory.lock(directory))
            return ""

        from_process_zero(hold)
        before = (directory / RECORD).read_bytes()
        if record:
            from_process_zero(lambda: run_directory.record_config(directory, config) or "")
        try:
            with Reporter() as reporter:
                controller.evolve(config, directory, resume=resume, reporter=reporter)
        except InputError:
            if topology.detect().index == 0:
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
    """Run a command and return its exit code."""
    try:
        return _leave(nivp.main(args=arguments, prog_name="nivp", standalone_mode=False) or FINISHED)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        return BAD_INPUT
    except click.ClickException as error:
        return _leave(_say(error.format_message(), BAD_INPUT))
    except InputError as error:
        return _leave(_say(str(error), BAD_INPUT))
    except RunStopped as error:
        return _leave(_say(str(error), STOPPED_EARLY))
    except RunFailed as error:
        return _leave(_say(str(error), FAILED))
    except (KeyboardInterrupt, click.Abort):
        return _leave(_say("interrupted", FAILED))
    except Exception:  # noqa: BLE001  a defect of ours: all of it on the screen
        traceback.print_exc()
        return _leave(FAILED)


def _say(message: str, code: int) -> int:
    index = os.environ.get("NIVP_PROCESS_ID", "0")
    who = "" if index == "0" else f"process {index}: "
    sys.stderr.write(f"nivp: {who}{' '.join(message.split())}\n")  # one write: lines of several processes stay whole
    return code


def _leave(code: int) -> int:
    """With several processes: part in order if all agree that it is over, else at once.

    A process that fails alone must not wait in the others' exit barrier, nor they for it.
    """
    jax = sys.modules.get("jax")
    if jax is not None and os.environ.get("NIVP_PROCESSES", "1") != "1" and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        if code not in (FINISHED, STOPPED_EARLY):
            topology.part()
            os._exit(code)
        jax.distributed.shutdown()
    return code


if __name__ == "__main__":
    sys.exit(main())
