"""`nivp watch`, `nivp plot` and `nivp compare`. What is slow to import is imported when they are called."""

import contextlib
import json
import sys
from pathlib import Path

import click

from nivp_dist.storage import run_directory
from nivp_dist.storage.metrics import plain


@click.command(epilog="Example: nivp watch runs/heat-001 10")
@click.argument("directory", metavar="DIR")
@click.argument("seconds", type=click.FloatRange(0.1), default=2.0, metavar="[SECONDS]")
def watch(directory, seconds):
    """Show status, solution and course of the run in DIR in the terminal until it ends, looking every SECONDS.

    From any host that sees DIR: it reads files only. The default is 2 s. What is not a terminal gets lines.
    """
    run_directory.read_summary(directory)  # raises InputError where there is no run
    from nivp_dist.report.watch import watch as watch_

    with contextlib.suppress(AttributeError):  # a stream of another kind
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  blocks that it cannot encode are shown as ?
    watch_(directory, sys.stdout, seconds)


@click.command(epilog="Example: nivp plot runs/heat-001")
@click.argument("directory", metavar="DIR")
@click.option(
    "--output", metavar="PATH", help="Folder for the pictures, or file of the movie. Default: in DIR/pictures."
)
@click.option(
    "--movie", is_flag=True, help="In place of the pictures, the solution at all stored times: a .gif or .mp4."
)
@click.option("--style", metavar="NAME", help="A style of matplotlib, such as ggplot. Default: a plain one of ours.")
def plot(directory, output, movie, style):
    """Draw the pictures of the run in DIR, or its movie, and print where they are.

    The movie is pictures/solution.gif, or what --output says: a .gif, or with the program ffmpeg a .mp4.
    """
    run_directory.read_summary(directory)  # raises InputError where there is no run
    if movie:
        from nivp_dist.report.movie import draw_movie

        drawn = [draw_movie(directory, output=output, style=style)]
    else:
        from nivp_dist.report import pictures

        drawn = pictures.draw(Path(directory), output=output, style=style)
    for path in drawn:
        click.echo(path)


@click.command(epilog="Example: nivp compare runs/heat-001 runs/heat-002")
@click.argument("directories", nargs=-1, required=True, metavar="DIR DIR...")
@click.option("--output", metavar="FILE", default="comparison.png", help="The picture. Default: comparison.png here.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts, and draw nothing.")
def compare(directories, output, as_json):
    """Show several runs beside each other: errors, residuals and times in a table and in a picture."""
    from nivp_dist.report import comparison

    runs = comparison.read(directories)
    if as_json:
        click.echo(json.dumps(plain(comparison.facts(runs)), indent=2))
        return
    for line in comparison.lines(runs):
        click.echo(line)
    click.echo(comparison.draw(runs, output))
