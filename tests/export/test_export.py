"""`nivp export` and `Run.to_xarray`: what other programs read is the solution, at the points that the file names."""

import csv
import json
import subprocess
import sys

import h5py
import jax
import numpy as np
import pytest
import pyvista
import xarray
import zarr

from nivp_dist import Config, cli, open_run
from nivp_dist.errors import InputError
from nivp_dist.network.network import build_network
from nivp_dist.problems.registry import load
from nivp_dist.storage import run_directory, snapshots

TIMES = [0.0, 0.25, 0.5]


def stored(folder, config):
    """A run with random networks at three times, their points around the origin. No errors are stored."""
    directory = run_directory.create(config, folder, "run")
    problem = load(config.problem)
    network, d = build_network(config.network, problem), problem.domain.dimension
    density = {"density_weights": np.ones(1), "density_means": np.zeros((1, d)), "density_covariances": np.eye(d)[None]}
    gaussian = np.ones(1), np.zeros((1, d)), np.eye(d)[None]
    for number, t in enumerate(TIMES):
        theta = network.initialise_near(jax.random.key(number), *gaussian)
        snapshots.save(
            directory,
            t,
            {"theta": theta, "relative_l2": 0.01 * t, "estimate": 0.02 * t, "estimate_bound": 0.1 * t} | density,
        )
    return open_run(directory)


@pytest.fixture(scope="module")
def wave(tmp_path_factory):
    """A system of two outputs, of which the reference gives both, in a box of two dimensions."""
    config = Config(problem={"name": "wave"}, network={"width": 5, "depth": 1, "frequencies": 1})
    return stored(tmp_path_factory.mktemp("wave") / "run", config)


@pytest.fixture(scope="module")
def density(tmp_path_factory):
    """A density on the whole space of three dimensions."""
    problem = {"name": "linear_fokker_planck", "parameters": {"dimension": 3}}
    config = Config(problem=problem, network={"width": 4, "depth": 1})
    return stored(tmp_path_factory.mktemp("density") / "run", config)


def export(capsys, run, *words):
    """What `nivp export` writes: its path."""
    assert cli.main(["export", str(run.directory), *words]) == 0
    return capsys.readouterr().out.strip()


def at(run, t, *sides):
    """u at every point of the product of sides: (sizes of the sides, outputs)."""
    x = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1)
    return run.solution(t)(x.reshape(-1, len(sides))).reshape(*x.shape[:-1], -1)


# ------------------------------------------------------------------------------------------------- xarray


def test_a_grid_of_a_box(wave):
    data = wave.to_xarray((5, 3))
    x, y = np.linspace(-1, 1, 5), np.linspace(-1, 1, 3)
    assert data["u"].dims == ("t", "x1", "x2") and list(data.data_vars)[:3] == ["u", "u_exact", "u_error"]
    np.testing.assert_array_equal(data.t, TIMES)
    np.testing.assert_allclose(data.x1, x)
    for number, t in enumerate(TIMES):
        exact = wave.reference(t)(np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2))
        for k, name in enumerate(wave.problem.output_names):
            np.testing.assert_allclose(data[name][number], at(wave, t, x, y)[..., k], rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(data[f"{name}_exact"][number], exact[:, k].reshape(5, 3), atol=1e-14)
    np.testing.assert_allclose(data["u_error"], data["u"] - data["u_exact"], atol=1e-14)
    np.testing.assert_allclose(data["relative_l2"], [0, 0.0025, 0.005])


def test_slices_times_and_bounds(density):
    data = density.to_xarray(4, at={"x2": 0.5}, times=[0.25], bounds={"x1": (-1, 2)})
    assert data["u"].dims == ("t", "x1", "x3") and data["u"].shape == (1, 4, 4) and data.x2 == 0.5
    np.testing.assert_array_equal(data.x1, [-1, 0, 1, 2])
    np.testing.assert_allclose(data.x3, np.linspace(-4, 4, 4))  # four standard deviations of the points
    exact = at(density, 0.25, data.x1.values, [0.5], data.x3.values)[:, 0, :, 0]
    np.testing.assert_allclose(data["u"][0], exact, rtol=1e-12)
    assert density.to_xarray(at={"x1": 0, "x2": 0}).u.shape == (3, 512)


def test_marginals_and_samples(density):
    data = density.to_xarray(marginals=8, times=[0.5])
    assert data["marginal_x2"].dims == ("t", "x2")
    edges = data["x2_edges"].values
    found = density.marginal(0.5, 1, edges)
    np.testing.assert_allclose(data["marginal_x2"][0], found.value)
    np.testing.assert_allclose(data["marginal_x2_standard_error"][0], found.error)
    np.testing.assert_allclose(data.x2, (edges[1:] + edges[:-1]) / 2)
    # The reference is a density of mass one: at the points of the grid that its marginal covers it sums to one.
    assert np.sum(data["marginal_x2_exact"][0] * np.diff(edges)) == pytest.approx(1, abs=0.02)
    drawn = density.to_xarray(samples=50, times=[0.5], seed=3)
    np.testing.assert_array_equal(np.stack([drawn[f"x{i}"][0] for i in (1, 2, 3)], axis=1), density.samples(0.5, 50, 3))


def test_provenance(wave):
    attributes = wave.to_xarray(2).attrs
    assert attributes["configuration"] == (wave.directory / "config.toml").read_text()
    assert json.loads(attributes["versions"])["jax"] == jax.__version__
    assert attributes["source"].startswith("nivp_dist ") and attributes["title"] == "solution of wave, d = 2"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"grid": 5, "at": {"x4": 0.0}}, "there is no coordinate x4; the problem has x1, x2"),
        ({"grid": 5, "at": {"x1": 3.0}}, r"x1 3 does not lie in the domain, \[-1, 1\]"),
        ({"grid": 5, "bounds": {"x1": (-1, 2)}}, r"x1 from -1 to 2 does not lie in the domain, \[-1, 1\]"),
        ({"grid": (5, 5, 5)}, "a grid of 5 x 5 x 5 points does not suit the free coordinates x1, x2"),
        ({"grid": 100_000}, "has more than 50000000 numbers: take fewer points"),
        ({"at": {"x1": 0.0, "x2": 0.0}}, "leave one coordinate free"),
        ({"grid": 5, "samples": 3}, "exclude each other"),
    ],
)
def test_what_does_not_suit_the_problem_is_one_line(wave, arguments, message):
    with pytest.raises(InputError, match=message):
        wave.to_xarray(**arguments)


def test_more_than_three_free_coordinates_need_a_slice(tmp_path):
    problem = {"name": "heat", "parameters": {"dimension": 4}}
    run = stored(tmp_path / "run", Config(problem=problem, network={"width": 3, "depth": 1, "frequencies": 1}))
    with pytest.raises(
        InputError, match="4 coordinates are free, and a grid shows at most 3: fix the others with a slice"
    ):
        run.to_xarray()
    assert run.to_xarray(2).u.shape == (3, 2, 2, 2, 2)


# ------------------------------------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def expected(wave):
    return wave.to_xarray((6, 4), times=[0.25, 0.5])


GRID = ["--grid", "6x4", "--times", "0.25,0.5"]


def test_netcdf_by_h5py(wave, expected, capsys):
    path = export(capsys, wave, "--to", "netcdf", *GRID)
    assert path == str(wave.directory / "exports/solution.nc")
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["u"], expected["u"])
        np.testing.assert_array_equal(file["x2"], expected["x2"])
        assert file.attrs["configuration"] == expected.attrs["configuration"]
    with xarray.open_dataset(path, engine="h5netcdf") as data:
        xarray.testing.assert_identical(data.load(), expected)


def test_zarr_by_zarr(wave, expected, capsys):
    store = zarr.open_group(export(capsys, wave, "--to", "zarr", *GRID), mode="r")
    np.testing.assert_array_equal(store["u_error"][:], expected["u_error"])
    np.testing.assert_array_equal(store["t"][:], [0.25, 0.5])
    assert store.attrs["source"] == expected.attrs["source"]


def test_npz_by_numpy(wave, expected, capsys):
    with np.load(export(capsys, wave, "--to", "npz", *GRID)) as file:
        np.testing.assert_array_equal(file["u"], expected["u"])
        attributes = json.loads(str(file["attributes"]))
    assert attributes["arrays"]["u"] == {"dims": ["t", "x1", "x2"], "long_name": expected["u"].attrs["long_name"]}
    assert attributes["configuration"] == expected.attrs["configuration"]


def test_csv_by_csv(wave, expected, capsys, tmp_path):
    folder = export(capsys, wave, "--to", "csv", *GRID, "--output", str(tmp_path / "tables"))
    with open(f"{folder}/t_x1_x2.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 6 * 4
    for row in (rows[0], rows[31]):
        point = {name: float(row[name]) for name in ("t", "x1", "x2")}
        assert float(row["u"]) == expected["u"].sel(point)
    with open(f"{folder}/t.csv", newline="") as file:
        assert [float(row["estimate"]) for row in csv.DictReader(file)] == expected["estimate"].values.tolist()
    attributes = json.loads((tmp_path / "tables/attributes.json").read_text())
    assert (attributes["problem"], attributes["fixed"]) == ("wave", {})


def test_a_fixed_coordinate_is_named_in_every_format(density, capsys, tmp_path):
    words = ["--grid", "3", "--slice", "x2=0.5", "--times", "0"]
    folder = export(capsys, density, "--to", "csv", *words)
    with open(f"{folder}/attributes.json") as file:
        assert json.load(file)["fixed"] == {"x2": 0.5}
    image = pyvista.read(export(capsys, density, "--to", "vtk", *words) + "/solution_00000.vti")
    assert image.field_data["x2"] == [0.5] and image.dimensions == (3, 3, 1)
    with h5py.File(export(capsys, density, "--to", "netcdf", *words)) as file:
        assert file["x2"][()] == 0.5


def test_vtk_by_vtk(wave, expected, capsys):
    folder = export(capsys, wave, "--to", "vtk", *GRID)
    reader = pyvista.get_reader(f"{folder}/solution.pvd")
    assert reader.time_values == [0.25, 0.5]
    reader.set_active_time_value(0.5)
    image = reader.read()[0]
    assert image.dimensions == (6, 4, 1) and image["u"].shape == (24,)
    for point, value in zip(image.points, image["u"]):
        found = expected["u"].sel(t=0.5).sel(x1=point[0], x2=point[1], method="nearest")
        assert value == found and abs(found.x1 - point[0]) < 1e-6
    assert image.field_data["configuration"][0] == expected.attrs["configuration"]


@pytest.mark.parametrize("format_", ["npz", "csv", "netcdf", "zarr"])
def test_samples_and_marginals_in_every_format(density, capsys, format_):
    for what in (["--samples", "5"], ["--marginals", "4"]):
        assert export(capsys, density, "--to", format_, "--times", "0.5", *what)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--to", "npz", "--times", "0.3"], "t = 0.3 is not a stored time; stored are: 0, 0.25, 0.5"),
        (["--to", "npz", "--grid", "4x"], "command line: '' is not a number: write it as in --grid 128x128"),
        (["--to", "npz", "--slice", "x2"], "command line: '' is not a number: write it as in --slice x3=0"),
        (["--to", "vtk", "--samples", "4"], "--to vtk shows a grid, and not samples"),
        (["--to", "vtk", "--grid", "2", "--output", "/dev/null/x"], "cannot be written"),
    ],
)
def test_mistakes_are_one_line(density, capsys, words, message):
    assert cli.main(["export", str(density.directory), *words]) == 2
    line = capsys.readouterr().err
    assert message in line and line.count("\n") == 1
    assert not list(density.directory.glob("exports/*.part"))


def test_what_is_there_is_replaced_only_where_it_is_an_export(wave, capsys, tmp_path):
    words = ["export", str(wave.directory), "--to", "csv", "--grid", "2", "--output", str(tmp_path / "mine")]
    assert cli.main(words) == 0
    assert cli.main(words) == 2 and "add --overwrite" in capsys.readouterr().err
    assert cli.main([*words, "--overwrite"]) == 0
    (tmp_path / "mine/attributes.json").unlink()
    assert cli.main([*words, "--overwrite"]) == 2 and "holds no export" in capsys.readouterr().err
    assert (tmp_path / "mine/t.csv").exists()


@pytest.mark.parametrize(
    "name, module", [("netcdf", "h5netcdf"), ("zarr", "zarr"), ("vtk", "pyvista"), ("netcdf", "xarray")]
)
def test_a_missing_library_is_one_line_that_names_the_extra(wave, capsys, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    assert cli.main(["export", str(wave.directory), "--to", name, "--grid", "2", "--overwrite"]) == 2
    line = capsys.readouterr().err
    assert module in line and "pip install 'nivp_dist[export]'" in line and line.count("\n") == 1


def test_the_libraries_are_imported_when_they_are_needed():
    code = "import sys; from nivp_dist import cli; import nivp_dist.run.tabulated; import nivp_dist.export.formats\n"
    code += (
        "sys.exit(bool({'xarray', 'pandas', 'h5py', 'h5netcdf', 'zarr', 'pyvista', 'vtkmodules'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
