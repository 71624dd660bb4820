"""`nivp plot` and `nivp compare`. What is slow to import is imported when they are called."""

import json
from pathlib import Path

import click

from nivp_dist.storage import run_directory
from nivp_dist.storage.metrics import plain


@click.command(epilog="Example: nivp plot runs/heat-001")
@click.argument("directory", metavar="DIR")
@click.option("--output", metavar="FOLDER", help="Folder for the pictures. Default: pictures in DIR.")
def plot(directory, output):
    """Draw the pictures of the run in DIR and print where they are."""
    run_directory.read_summary(directory)  # raises InputError where there is no run
    from nivp_dist.report import pictures

    for path in pictures.draw(Path(directory), output=output):
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
