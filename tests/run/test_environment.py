"""The environment of a run is recorded, and a resume under another one says so."""

import pytest

from nivp_dist.run import environment
from nivp_dist.storage.metrics import read_lines


def changes(ran):
    events = read_lines(ran.directory / "events.jsonl")
    return [event["message"] for event in events if event["kind"] == "environment"]


@pytest.mark.parametrize(
    "name, value", [("jax", "0.1.0"), ("CPU cores", "77"), ("Python", "3.9.1"), ("XLA_FLAGS", "--x")]
)
def test_a_resume_under_another_environment_is_one_event_with_both(runs, undisturbed, crash, monkeypatch, name, value):
    describe = environment.describe
    with monkeypatch.context() as patch:
        patch.setattr(environment, "describe", lambda mesh: describe(mesh) | {name: value})
        ran = runs.begin(crash, ("step", 9))
    runs.resume(ran)
    (message,) = changes(ran)
    assert message.startswith("another environment than before, the last bits may differ from here on: ")
    assert f"{name} {value} -> " in message and message.count("->") == 1


def test_a_resume_in_the_same_environment_says_nothing(runs, crash):
    ran = runs.begin(crash, ("step", 9))
    runs.resume(ran)
    assert changes(ran) == []


def test_a_directory_of_a_newer_version_says_so():
    before, now = {"nivp_dist": "0.10.0", "jax": "1"}, {"nivp_dist": "0.2.0", "jax": "1"}
    line = environment.change(before, now)
    assert line.startswith("the directory was written by a newer nivp_dist; ") and "nivp_dist 0.10.0 -> 0.2.0" in line
    assert "newer" not in environment.change(now, before)
    assert environment.change(now, now) == ""


def test_the_cores_of_this_process_are_recorded(undisturbed):
    from nivp_dist.backend.mesh import make_mesh

    facts = environment.describe(make_mesh(1))
    assert int(facts["CPU cores"]) >= 1 and facts["devices"].startswith("1 ") and facts["processes"] == "1"


def test_options_of_jax_that_may_change_a_result_are_recorded(monkeypatch):
    from nivp_dist.backend.mesh import make_mesh

    monkeypatch.setenv("JAX_DEFAULT_MATMUL_PRECISION", "bfloat16")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "somewhere")
    options = environment.describe(make_mesh(1))["JAX options"].split()
    assert "JAX_DEFAULT_MATMUL_PRECISION=bfloat16" in options
    assert not [option for option in options if "CACHE" in option or "PLATFORM" in option]
