import time

import pytest
from example_run import SUMMARY

from nivp_dist.storage import run_directory
from nivp_dist.storage.metrics import Lines


@pytest.fixture
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def directory(tmp_path):
    """A run after 30 steps of a minute each: 15 steps of 0.001 in t, then 15 of 0.01."""
    (tmp_path / "config.toml").write_text('[problem]\nname = "heat"\n')
    (tmp_path / "checkpoints/47").mkdir(parents=True)
    run_directory.write_summary(tmp_path, SUMMARY)
    steps, t = Lines(tmp_path / "metrics.jsonl"), 0.0
    for number in range(1, 31):
        t += 0.001 if number <= 15 else 0.01
        steps.append({"step": number, "t": t, "h": 0.01, "wall_seconds": 60.0 * number})
    return tmp_path
