"""Every section of `nivp bench speed` but gpu with tiny sizes, the arithmetic of ratios and slopes, and bad input."""

import json
import math

import numpy as np
import pytest

from nivp_dist import cli
from nivp_dist.bench import (
    cost_model,
    end_to_end,
    fit,
    growth,
    laplacian,
    machine,
    precision,
    products,
    roofline,
    scaling,
    timing,
    velocity,
)
from nivp_dist.bench.published import Settings
from nivp_dist.errors import RunFailed

TINY = {"form": "direct", "width": 4, "depth": 1, "frequencies": 1}
RATES = roofline.Roofline({"float32": 1e10, "float64": 5e9}, 1e10)


@pytest.fixture
def tiny(monkeypatch):
    """Sizes for which only the compilation takes time."""
    published = Settings(points=60, rank=8, mu=1e-4, epochs=20, batch=50, head_points=100, rtol=1e-2)
    monkeypatch.setattr(timing, "SHORTEST", 1e-4)
    monkeypatch.setattr(roofline, "measure", lambda quick: RATES)
    monkeypatch.setattr(products, "QUICK", ((4,), (30,), (10,)))
    monkeypatch.setattr(products, "QUICK_RANKS", (3,))
    monkeypatch.setattr(products, "DEPTH", 1)
    monkeypatch.setattr("nivp_dist.points.sampling.PILOT_POINTS", 500)
    monkeypatch.setattr(velocity, "TOLERANCES", (1e-8,))
    monkeypatch.setattr(precision, "PROBLEMS", ("advection",))
    monkeypatch.setattr(precision, "MUS", (1e-3,))
    monkeypatch.setattr(velocity, "QUICK", velocity.Size(TINY, 60, 2, 60, published))
    monkeypatch.setattr("nivp_dist.bench.cases.RIGHT_HAND_SIDES", ("advection",))
    monkeypatch.setattr(fit, "QUICK", fit.Size(TINY, 60, 3, 0.05, published))
    monkeypatch.setattr(fit, "PROBLEMS", ("fokker_planck_trap",))
    task = end_to_end.QUICK["fokker_planck_trap"]
    small = {"network.width": "4", "network.depth": "1", "sampling.points": "60", "fit.points": "60"}
    small |= {"solver.method": "primal", "integrator.method": "heun"}
    task = task._replace(overrides=task.overrides | small, network=TINY, published=published, t_end=0.02)
    monkeypatch.setattr(end_to_end, "QUICK", {"fokker_planck_trap": task})
    monkeypatch.setattr(growth, "QUICK_WIDTHS", (2, 4))
    monkeypatch.setattr(growth, "QUICK_POINTS", (100, 300))
    monkeypatch.setattr(growth, "DEPTH", 1)
    monkeypatch.setattr(laplacian, "QUICK", (2, 3))
    monkeypatch.setattr(laplacian, "DEPTH", 1)


def measured(section, tmp_path):
    """The section's part of the JSON file, by the command line."""
    output = tmp_path / "speed.json"
    assert cli.main(["bench", "speed", section, "--quick", "--output", str(output)]) == 0
    report = json.loads(output.read_text(), parse_constant=pytest.fail)  # NaN and Infinity are no JSON
    assert report["machine"]["versions"]["jax"]
    assert report["sections"][section]["roofline"]["flops"]["float32"] == 1e10
    return report["sections"][section]


def test_the_section_products_compares_equal_results(tiny, tmp_path, capsys):
    found = measured("products", tmp_path)
    assert {(row["d"], row["rank"], row["dtype"]) for row in found["rows"]} == {
        (10, 0, "float32"), (10, 0, "float64"), (10, 3, "float32"), (10, 3, "float64")
    }  # fmt: skip
    for row in found["rows"]:
        # All ways computed the same product, or the same sketch of M.
        assert row["difference"] < (1e-12 if row["dtype"] == "float64" else 1e-5)
        assert set(row["ratio"]) >= {"again", "linearised", "explicit"}
        assert ("in a loop" in row["ratio"]) == (row["rank"] == 0) != ("J anew" in row["ratio"])
        assert ("columns" in row["ratio"]) == (row["rank"] > 0)
        # Our approximation of rank 3 for layers of 91 x 4 and 5 x 1.
        operations = 3 * (2 * (91 + 4 + 5 + 1) + 3 * 3) if row["rank"] else 4 * row["p"]
        assert row["flops_rate"] == pytest.approx(30 * operations / row["seconds"]["ours"], rel=1e-9)
    assert set(found["summary"]) == {"product float32", "product float64", "sketch float32", "sketch float64"}
    assert "product M v" in capsys.readouterr().out


def test_the_section_velocity_compares_at_equal_accuracy(tiny, tmp_path):
    (row,) = measured("velocity", tmp_path)["rows"]
    # Both errors are against a dense solution, and ours is at least as accurate.
    assert row["error"]["auto"] <= row["error"]["published"] < 0.1
    assert row["error"]["pcg"] <= row["error"]["published"]
    assert row["ratio"].keys() == {"auto", "pcg"}


def test_the_section_precision_orders_the_formats_by_their_error(tiny, tmp_path):
    rows = measured("precision", tmp_path)["rows"]
    assert [row["precision"] for row in rows] == ["float64", "float32", "tensorfloat32", "bfloat16"]
    products = [row["product_error"] for row in rows]
    assert products == sorted(products) and products[0] < 1e-13 < 1e-8 < products[1] < 1e-5 < products[2]
    # All converge to the velocity of the dense solve: only the search directions are coarse.
    assert all(row["code"] == "converged" and row["error"] < 1e-6 for row in rows)
    assert rows[0]["ratio"] == 1


def test_the_section_fit_follows_both_fits(tiny, tmp_path):
    (row,) = measured("fit", tmp_path)["rows"]
    assert len(row["ours"]) == 3
    assert row["adam_steps"] == 20
    assert row["adam"][-1][1] < 10


def test_the_section_end_to_end_runs_both_procedures(tiny, tmp_path):
    (row,) = measured("end_to_end", tmp_path)["rows"]
    assert row["ours"]["error"] > 0
    assert row["published"].get("failure") or row["published"]["error"] > 0
    assert row["ratio"] == pytest.approx(row["published"]["seconds"] / row["ours"]["seconds"])


def test_the_section_laplacian_compares_equal_results(tiny, tmp_path):
    rows = measured("laplacian", tmp_path)["rows"]
    assert [row["d"] for row in rows] == [2, 3]
    assert all(row["difference"] < 1e-12 for row in rows)


def test_the_section_cost_model_prints_its_table(tiny, tmp_path, capsys):
    rows = measured("cost_model", tmp_path)["rows"]
    assert [row["devices"] for row in rows[:4]] == [8, 64, 512, 1024]
    assert set(cost_model.table()) <= set(capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    "width, n, chunk", [(31, 4096, 0), (120, 4096, 0), (32, 30_000, 0), (32, 30_000, 8192), (32, 100_000, 8192)]
)
def test_the_memory_of_a_product_agrees_with_its_formula(width, n, chunk):
    """The formula is compared with the bytes of the stored arrays and with what XLA reports to allocate.

    XLA reported up to 4 % more (jaxlib 0.10.2); the bound leaves a factor of three.
    """
    line = growth._line(width, n, chunk, 1)
    assert line["bytes"] == pytest.approx(line["predicted_bytes"], rel=0.12)


def test_the_section_scaling_computes_efficiencies_and_growth(tiny, tmp_path, monkeypatch):
    def run(layout, cores, n, size, what):  # the time is proportional to the points of a device
        return {"seconds": [1e-3 * n / layout.parts] * 2}

    def run_apart(cores, n, size, what):  # the memory that they share costs a quarter more
        return {"seconds": [1.25e-3 * n] * 2}

    monkeypatch.setattr(scaling, "run", run)
    monkeypatch.setattr(scaling, "run_apart", run_apart)
    monkeypatch.setattr(machine, "cores", lambda: [0, 1])
    found = measured("scaling", tmp_path)
    for what in ("velocity", "step"):
        strong, (*weak, apart) = found[f"strong_{what}"], found[f"weak_{what}"]
        assert [line["processes"] * line["devices"] for line in strong] == [1, 2, 4, 2]
        assert all(line["efficiency"] == pytest.approx(1.0) for line in strong + weak)
        assert apart["efficiency"] == pytest.approx(0.8) and apart["devices"] == 0 and apart["processes"] == 2
    for what in ("p", "n"):
        assert math.isfinite(found[f"growth_{what}"]["slope"])
        assert all(line["bytes"] > 0 for line in found[f"growth_{what}"]["lines"])


@pytest.mark.parametrize(("what", "processes"), [("velocity", 2), ("step", 1)])
def test_the_worker_measures(monkeypatch, what, processes):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    size = scaling.Size(200, 100, 4, 2, 4, 3, 2, 1, 1)
    found = scaling.run(scaling.Layout(processes, 1, processes), [0], 200, size, what)
    assert found["iterations"] == 3 if what == "velocity" else found["iterations"] > 6  # one and more a velocity
    assert len(found["seconds"]) == 2
    assert min(found["seconds"]) > 0


def test_a_worker_that_fails_is_an_error_with_its_last_line():
    size = scaling.Size(200, 100, 0, 2, 4, 3, 2, 1, 1)  # a width of 0 is invalid
    with pytest.raises(RunFailed, match="1 processes of 1 devices failed: "):
        scaling.run(scaling.Layout(1, 1, 1), [0], 200, size, "velocity")


def test_ratios_are_medians_over_the_rounds():
    samples = timing.Samples({"slow": [4.0, 40.0, 9.0], "fast": [2.0, 10.0, 3.0]})
    assert samples.ratio("slow", "fast") == 3.0
    assert samples.median("slow") == 9.0


def test_candidates_are_called_in_rotated_order(monkeypatch):
    monkeypatch.setattr(timing, "SHORTEST", 0.0)
    calls = []
    candidates = {name: lambda name=name: calls.append(name) or np.zeros(1) for name in "ab"}
    samples = timing.interleaved(candidates, rounds=3, parts={"b": 4})
    assert calls[4:] == ["a", "b", "b", "a", "a", "b"]
    assert len(samples.seconds["a"]) == 3


def test_the_slope_is_taken_over_the_last_two_decades():
    pairs = [(size, 5.0 if size < 1e4 else 1e-4 * size) for size in (1e2, 1e3, 1e4, 1e5, 1e6)]
    assert growth.slope(pairs) == pytest.approx(1.0)


def test_an_error_that_adam_does_not_reach_gives_a_lower_bound():
    lines = fit.compare([(1.0, 0.2), (2.0, 0.02)], [(3.0, 0.25), (50.0, 0.05)])
    assert [(line["error"], line["ratio"], line["lower_bound"]) for line in lines] == [
        (3e-1, 3.0, False),
        (1e-1, 25.0, False),
        (3e-2, 25.0, True),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prodducts"], "nivp: bench speed: there is no section 'prodducts'; there are products, "),
        (["laplacian", "--output", "there.json"], "nivp: there.json exists and is not overwritten"),
    ],
)
def test_bad_input_is_one_line_and_overwrites_no_file(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.json").write_text("{}")
    assert cli.main(["bench", "speed", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert (tmp_path / "there.json").read_text() == "{}"
