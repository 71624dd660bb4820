"""`nivp export`: reads its options, and writes one file or folder. Imports what is slow to import when it is called."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import click

from nivp_dist.errors import InputError
from nivp_dist.storage import run_directory

FOLDER = "exports"  # in the run directory
SIGNS = ("zarr.json", "attributes.json", "*.pvd")  # files of which one is in every folder that is an export
NAMES = ("npz", "csv", "netcdf", "zarr", "vtk")


@click.command(epilog="Example: nivp export runs/heat-001 --to netcdf --grid 128x128")
@click.argument("directory", metavar="DIR")
@click.option("--to", "name", type=click.Choice(NAMES), required=True, help="The format.")
@click.option("--output", metavar="PATH", help="The file or folder to write. Default: exports/ in DIR.")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@click.option("--grid", metavar="NxN", help="Points along each free coordinate, or one number for all of them.")
@click.option("--slice", "slices", multiple=True, metavar="x3=0", help="Fix a coordinate. May be repeated.")
@click.option("--bounds", multiple=True, metavar="x1=-2:2", help="The part of a coordinate. May be repeated.")
@click.option("--times", metavar="T,T", help="Some of the stored times. Default: all.")
@click.option("--marginals", type=click.IntRange(1), metavar="BINS", help="Marginals of a density, in place of a grid.")
@click.option("--samples", type=click.IntRange(1), metavar="N", help="Samples of a density, in place of a grid.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the samples. Default: 0.")
def export(directory, name, output, overwrite, grid, slices, bounds, times, marginals, samples, seed):
    """Write the run in DIR for other programs: numpy, tables, xarray, ParaView.

    The outputs on a grid of the domain (along real axes, of the part that the points fill), with reference and error
    where the problem has a reference; or marginals or samples of a density. Coordinates are named x1, x2, ...
    netcdf, zarr and vtk need the extra `export`.
    """
    run_directory.require_run(directory)
    numbers = None if grid is None else [_number(int, part, "--grid 128x128") for part in grid.split("x")]
    points = numbers[0] if numbers is not None and len(numbers) == 1 else numbers
    at = {axis: _number(float, value, "--slice x3=0") for axis, value in map(_named, slices)}
    parts = {axis: _interval(value) for axis, value in map(_named, bounds)}
    chosen = None if times is None else [_number(float, part, "--times 0.1,0.5") for part in times.split(",")]

    from nivp_dist.export.formats import FORMATS
    from nivp_dist.run import tabulated
    from nivp_dist.run.stored import open_run

    for library in FORMATS[name].needs:
        tabulated.library(library)
    what = tabulated.kind(points, at or None, parts, marginals, samples, seed)
    path = Path(output) if output else Path(directory) / FOLDER / f"{what.name}{FORMATS[name].ending}"
    require_free(path, overwrite)
    try:
        table = tabulated.tabulate(open_run(directory), what, chosen)
    except ValueError as error:
        raise InputError(f"{directory}: {error}") from None
    write(lambda place: FORMATS[name].write(table, place), path)
    click.echo(path)


def require_free(path: Path, overwrite: bool) -> None:
    """Raises InputError if something is at the path that may not be replaced."""
    if path.exists() and not overwrite:
        raise InputError(f"{path}: is there already: add --overwrite, or choose another with --output")
    if path.is_dir() and not any(next(path.glob(name), None) for name in SIGNS):
        raise InputError(f"{path}: a folder that holds no export, which is not replaced: choose another with --output")


def write(action: Callable[[Path], None], path: Path) -> None:
    """Call action(place) to write a file or folder, and put that at the path when it is whole. Raises InputError."""
    place = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        action(place)
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(place, path)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be written: {reason}; choose another with --output") from None
    finally:
        with contextlib.suppress(OSError):
            _remove(place)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _named(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _interval(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    return _number(float, low, "--bounds x1=-2:2"), _number(float, high, "--bounds x1=-2:2")


def _number(kind, text: str, example: str):
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"command line: {text!r} is not a number: write it as in {example}") from None
