"""The tables of README and guide that code can produce or check."""

import dataclasses
import re

import pytest
from documents import content, table

from nivp_dist.bench import accuracy, cost_model, score_sheet, step_model
from nivp_dist.bench.faults.kinds import KINDS
from nivp_dist.bench.rows import ROWS
from nivp_dist.callbacks import RunView
from nivp_dist.callbacks.loading import SHIPPED
from nivp_dist.settings.automatic import mu_of, resolved
from nivp_dist.settings.model import Config
from nivp_dist.settings.rules import settings_for_accuracy

SHEET = "accuracy: begin"


def test_the_score_sheet_has_every_row_with_its_bounds():
    bound = lambda value: "-" if value is None else f"{value:g}"  # noqa: E731
    wanted = []
    for row in ROWS:
        command = accuracy.command(row).removeprefix("nivp run ")
        wanted.append((f"{row.problem} (`{command}`)", bound(row.must), bound(row.goal)))
    assert [(cells[0], cells[6], cells[7]) for cells in table("accuracy", SHEET)] == wanted


def test_the_headline_rows_of_the_readme_are_rows_of_the_guide():
    rows = table("README", SHEET)
    stale = [cells for cells in rows if cells not in table("accuracy", SHEET)]
    assert rows and not stale, "copy these rows from nivp_dist/guide/accuracy.md again"


@pytest.mark.parametrize("document", ["README", "accuracy"])
def test_the_head_of_the_score_sheet_is_that_of_the_command(document):
    head = score_sheet.markdown({"rows": []})
    assert f"<!-- {SHEET} -->\n" + "\n".join(head) + "\n" in content(document)


@pytest.mark.parametrize("model", [cost_model, step_model], ids=["velocity", "step"])
def test_the_tables_of_the_cost_models(model):
    name = model.__name__.rpartition(".")[2]
    shown = re.search(rf"<!-- table: {name} -->\n(.*?)\n<!-- table: end -->", content("speed"), re.DOTALL)
    assert shown[1].splitlines() == model.table()


def test_the_faults_that_were_tried_are_those_of_the_command_and_none_was_bad():
    *rows, total = table("cluster", "table: faults")
    assert {row[0].strip("`"): row[1] for row in rows} == {kind.name: kind.what for kind in KINDS}
    counts = [list(map(int, row[2:])) for row in (*rows, total)]
    assert [sum(column) for column in zip(*counts[:-1])] == counts[-1]
    assert all(faults == same + said and bad == 0 for faults, same, said, bad in counts)


def test_what_callbacks_see_and_which_are_ready_made():
    named = re.findall(r"`(\w+)", " ".join(row[0] for row in table("python", "fields: view")))
    methods = {name for name in vars(RunView) if not name.startswith("_")}
    assert sorted(named) == sorted(methods | RunView.__annotations__.keys())
    parameters = {}
    for name, cls in SHIPPED.items():
        fields = dataclasses.fields(cls)
        shown = [f.name if f.default is dataclasses.MISSING else f"{f.name}={f.default:g}" for f in fields]
        parameters[name] = f"`{name}({', '.join(shown)})`"
    assert {row[0] for row in table("python", "fields: trackers")} == set(parameters.values())


def test_what_follows_from_accuracy():
    rows = dict(table("settings", "table: accuracy"))
    assert set(re.findall(r"`(\w+\.\w+)`", " ".join(rows))) == {
        f"{section}.{key}" for section, values in settings_for_accuracy(1e-3).items() for key in values
    }
    a = 1e-3
    config = Config(problem={"name": "heat"}, accuracy=a)
    for parameters, share in ((4000, 1e-8), (4001, 1e-7)):
        assert mu_of(resolved(config, parameters, False).solver) == pytest.approx(share * a)
    wanted = {"integrator.rtol": a / 20, "fit.target": 5 * a, "fit.stop_at": a / 100}
    for key, value in (wanted | {"restart.bound": a}).items():
        section, name = key.split(".")
        assert settings_for_accuracy(a)[section][name] == pytest.approx(value)
