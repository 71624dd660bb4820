"""The formats of `nivp export`: arrays of a run (``run.tabulated``) as files of numpy, text, netCDF, zarr and VTK.

Every function writes to a path at which nothing is yet.
"""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import quoteattr

import numpy as np

from nivp_dist.errors import InputError
from nivp_dist.run.tabulated import Tabulated, Variable, dataset, library

ATTRIBUTES = "attributes"  # the array, or the file, that holds the provenance as JSON
SHOWN_BY_VTK = 3  # coordinates


class Format(NamedTuple):
    """ending: of the name of the file or, if the format has several files, of their folder. needs: libraries."""

    ending: str
    write: Callable[[Tabulated, Path], None]
    needs: tuple[str, ...] = ()


def to_npz(table: Tabulated, path: Path) -> None:
    """A numpy archive: every array by its name, and the provenance as a text in JSON."""
    arrays: dict[str, Any] = {name: one.values for name, one in (table.coordinates | table.variables).items()}
    arrays[ATTRIBUTES] = json.dumps(_described(table))
    with open(path, "wb") as file:  # numpy would add an ending to a path
        np.savez_compressed(file, **arrays)


def to_csv(table: Tabulated, path: Path) -> None:
    """A folder, solution_csv: a table t_x1_x2.csv for every set of dimensions, and attributes.json."""
    path.mkdir()
    (path / f"{ATTRIBUTES}.json").write_text(json.dumps(_described(table), indent=2), "utf-8")
    groups: dict[tuple[str, ...], dict[str, Variable]] = {}
    for name, one in table.variables.items():
        groups.setdefault(one.dims, {})[name] = one
    for dims, variables in groups.items():
        axes = [table.coordinates[name].values for name in dims]
        columns = [side.ravel() for side in np.meshgrid(*axes, indexing="ij")]
        columns += [one.values.ravel() for one in variables.values()]
        with open(path / f"{'_'.join(dims)}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*dims, *variables])
            writer.writerows(zip(*(column.tolist() for column in columns)))


def to_netcdf(table: Tabulated, path: Path) -> None:
    """netCDF-4, by h5netcdf."""
    dataset(table).to_netcdf(path, engine="h5netcdf")


def to_zarr(table: Tabulated, path: Path) -> None:
    """A folder: a store of zarr, version 3, without consolidated metadata, which that version does not have yet."""
    dataset(table).to_zarr(path, mode="w-", consolidated=False, zarr_format=3)


def to_vtk(table: Tabulated, path: Path) -> None:
    """A folder, solution_vtk: an image solution_00000.vti for every time, and solution.pvd, which lists them."""
    vista = library("pyvista")
    if table.name != "solution":
        raise InputError(f"--to vtk shows a grid, and not {table.name}: choose another format")
    fields = {name: one for name, one in table.variables.items() if len(one.dims) > 1}
    free = next(iter(fields.values())).dims[1:]
    if len(free) > SHOWN_BY_VTK:
        raise InputError(
            f"--to vtk shows at most {SHOWN_BY_VTK} coordinates: fix some of {', '.join(free)} with --slice"
        )
    path.mkdir()
    times, lines = table.coordinates["t"].values, []
    for number, t in enumerate(times):
        image, name = _image(vista, [table.coordinates[axis].values for axis in free]), f"{table.name}_{number:05d}.vti"
        for field, one in fields.items():
            image.point_data[field] = one.values[number].ravel(order="F")
        image.field_data["TimeValue"] = [float(t)]
        for key, entry in (table.attributes | fixed(table)).items():
            image.field_data[key] = [entry]
        image.save(path / name)
        lines.append(f"    <DataSet timestep={quoteattr(repr(float(t)))} file={quoteattr(name)}/>\n")
    head = '<?xml version="1.0"?>\n<VTKFile type="Collection" version="0.1">\n  <Collection>\n'
    (path / f"{table.name}.pvd").write_text(head + "".join(lines) + "  </Collection>\n</VTKFile>\n", "utf-8")


FORMATS = {
    "npz": Format(".npz", to_npz),
    "csv": Format("_csv", to_csv),
    "netcdf": Format(".nc", to_netcdf, ("xarray", "h5py", "h5netcdf")),
    "zarr": Format(".zarr", to_zarr, ("xarray", "zarr")),
    "vtk": Format("_vtk", to_vtk, ("pyvista",)),
}


def _image(vista, axes: list[np.ndarray]):
    """A regular grid of VTK, which has three axes, with one point along those that are missing."""
    sizes = [len(axis) for axis in axes] + [1] * (SHOWN_BY_VTK - len(axes))
    spacing = [float(axis[1] - axis[0]) if len(axis) > 1 else 1.0 for axis in axes] + [1.0] * (SHOWN_BY_VTK - len(axes))
    origin = [float(axis[0]) for axis in axes] + [0.0] * (SHOWN_BY_VTK - len(axes))
    return vista.ImageData(dimensions=sizes, spacing=spacing, origin=origin)


def _described(table: Tabulated) -> dict:
    """The provenance, for every array its dimensions and meaning, and the values of fixed coordinates."""
    arrays = (table.coordinates | table.variables).items()
    described = {name: {"dims": list(one.dims), "long_name": one.meaning} for name, one in arrays}
    return table.attributes | {"arrays": described, "fixed": fixed(table)}


def fixed(table: Tabulated) -> dict[str, float]:
    """The values of the coordinates that a slice has fixed."""
    return {name: float(one.values) for name, one in table.coordinates.items() if not one.dims}
