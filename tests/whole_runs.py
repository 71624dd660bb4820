"""Whole runs of a tiny problem, in this process and in others, for tests/run and tests/cluster."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import nivp_dist
from nivp_dist.run import controller
from nivp_dist.run.reporter import SilentReporter
from nivp_dist.settings.files import read_config, resume_config
from nivp_dist.storage import run_directory, snapshots
from nivp_dist.storage.metrics import read_lines

ROOT = Path(nivp_dist.__file__).resolve().parent.parent

PROBLEM = '''
import jax.numpy as jnp
import numpy as np

from nivp_dist import Box, Problem
from nivp_dist.problems import laplacian


class Modes(Problem):
    """u_t = k lap u on [-1, 1], started from two of its modes: each decays at its own rate."""

    k: float = 0.1
    nan_after: float = 1e9

    @property
    def domain(self):
        return Box(1)

    def initial(self, x):
        return jnp.cos(jnp.pi * x[0] / 2) + 0.5 * jnp.sin(jnp.pi * x[0])

    def rhs(self, u, x, t):
        return jnp.where(t > self.nan_after, jnp.nan, self.k) * laplacian(u, x)

    def reference(self, x, t):
        rate = self.k * np.pi**2
        slow, fast = np.exp(-rate * t / 4) * np.cos(np.pi * x / 2), np.exp(-rate * t) * np.sin(np.pi * x)
        return (slow + 0.5 * fast)[:, 0]
'''

# 201 points: not a multiple of 2 or 4 devices. Points kept for two steps: then the last velocity decides too.
CONFIG = """
seed = 1
devices = 1
[problem]
file = "modes.py"
class = "Modes"
[network]
width = 8
depth = 1
frequencies = 1
alpha = 1.0
[sampling]
points = 201
redraw_every = 2
[solver]
method = "primal"
mu = 1e-9
[integrator]
method = "bogacki_shampine"
rtol = 2e-6
t_end = 0.3
initial_step = 0.01
[fit]
order = 1  # a round more or less would change the steps at which the tests stop this run
points = 300
iterations = 12
target = 1e-3
[output]
times = [0.1]
evaluation_points = 2000
plots = false
[checkpoint]
every_steps = 4
"""


class Crash(BaseException):
    """The end of a process, as far as its run directory can tell."""


class At(SilentReporter):
    """Calls `action` at a moment: ("fit" | "refit" | "step" | "note", number of the call or text of the note)."""

    def __init__(self, kind, number, action):
        super().__init__()
        self.kind, self.number, self.action, self.current, self.counts = kind, number, action, None, {}

    def phase(self, name):
        self.current = name

    def fit(self, *_):
        self._count("refit" if self.current == "refit" else "fit")

    def step(self, *_):
        self._count("step")

    def note(self, message):
        if self.kind == "note" and self.number in message:
            self.action()

    warn = note

    def _count(self, kind):
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if (kind, self.counts[kind]) == (self.kind, self.number):
            self.action()


@dataclasses.dataclass
class Ran:
    """A run directory, read."""

    directory: Path

    @property
    def summary(self):
        return run_directory.read_summary(self.directory)

    @property
    def metrics(self):
        """Lines of metrics.jsonl without wall times."""
        lines = read_lines(self.directory / "metrics.jsonl")
        times = ("wall_seconds", "spectrum_seconds")
        return [{key: value for key, value in line.items() if key not in times} for line in lines]

    @property
    def events(self):
        return [(event["kind"], event["message"]) for event in read_lines(self.directory / "events.jsonl")]

    def snapshots(self):
        return {entry.t: snapshots.load(entry.path) for entry in snapshots.list_snapshots(self.directory)}

    def theta(self, t=0.3):
        return self.snapshots()[t]["theta"]


class Runs:
    """Starts runs of the configuration above, or of another, with overrides."""

    Ran = Ran

    def __init__(self, folder: Path, cache: Path):
        self.folder, self.cache, self.count = folder, cache, 0
        (folder / "modes.py").write_text(PROBLEM)
        (folder / "modes.toml").write_text(CONFIG)

    def new(self) -> Path:
        self.count += 1
        return self.folder / f"run{self.count}"

    def config(self, source=None, **overrides):
        """Overrides with __ for the dot: integrator__t_end=0.1."""
        settings = {key.replace("__", "."): _toml(value) for key, value in overrides.items()}
        return read_config(source or self.folder / "modes.toml", settings)

    def run(self, config=None, reporter=None, problem=None, **overrides) -> Ran:
        """In this process, from its recorded configuration, as the command line does it."""
        directory = run_directory.create(config or self.config(**overrides), self.new(), "run")
        controller.evolve(read_config(directory / "config.toml"), directory, reporter=reporter, problem=problem)
        return Ran(directory)

    def begin(self, error, moment=None, config=None, **overrides) -> Ran:
        """A run that ends with an exception: of its own, or raised at a moment (kind, number)."""
        reporter = None
        if moment is not None:
            reporter = At(*moment, _raiser(error))
        with pytest.raises(error):
            self.run(config, reporter, **overrides)
        return Ran(self.folder / f"run{self.count}")

    def resume(self, ran: Ran, reporter=None, **overrides) -> Ran:
        settings = {key.replace("__", "."): _toml(value) for key, value in overrides.items()}
        config = resume_config(ran.directory, settings)
        controller.evolve(config, ran.directory, resume=True, reporter=reporter)
        return ran

    # Processes ------------------------------------------------------------------------------------

    def environment(self, devices=1, **extra) -> dict:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("NIVP_")}
        flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in flag]
        environment |= {
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(self.cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "XLA_FLAGS": " ".join([*flags, f"--xla_force_host_platform_device_count={devices}"]),
        }
        return environment | extra

    def process(self, *arguments, devices=1, launcher=0, cwd=None) -> subprocess.Popen:
        """`nivp ARGUMENTS` in a process of its own, or by `launch/local N`."""
        command = [sys.executable, "-m", "nivp_dist.cli"]
        if launcher:
            command = [sys.executable, str(local_launcher()), str(launcher)]
        return subprocess.Popen(
            [*command, *map(str, arguments)],
            env=self.environment(devices),
            cwd=cwd or self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *arguments, **keywords):
        """The same, to its end: (exit code, stdout, stderr)."""
        process = self.process(*arguments, **keywords)
        out, err = process.communicate(timeout=600)
        return process.returncode, out, err


def wait_until(condition, process, seconds=400):
    """Poll until the condition holds; the process must not end before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def assert_same(ran, other):
    """A run ended with the bits, the metrics and the errors of another."""
    mine, theirs = ran.snapshots(), other.snapshots()
    assert mine.keys() == theirs.keys()
    pairs = {(t, name): (mine[t][name], theirs[t][name]) for t in mine for name in mine[t]}
    assert not {key: pair for key, pair in pairs.items() if not np.array_equal(*pair, equal_nan=True)}
    assert ran.metrics == other.metrics
    drop = ("wall_seconds", "compile_seconds", "versions")
    assert {k: v for k, v in ran.summary.items() if k not in drop} == {
        k: v for k, v in other.summary.items() if k not in drop
    }


# Sums over points are split differently on another number of devices: rounding (1e-16), which a solve multiplies by its
# condition, tr M / mu = 1e9 here. theta parts by up to 1e-6, in directions that hardly move u (1e-10 found).
THETA, SOLUTION = 1e-6, 1e-9


def assert_close(ran, other, t=0.3):
    """The same until t as another run but for the rounding of its sums: theta, and the errors, which are integrals."""
    a, b = ran.theta(t), other.theta(t)
    assert np.linalg.norm(a - b) < THETA * np.linalg.norm(b)
    errors = [[error["relative_l2"] for error in one.summary["errors"] if error["t"] <= t] for one in (ran, other)]
    np.testing.assert_allclose(*errors, rtol=0, atol=SOLUTION)
    mine, theirs = ([line["t"] for line in one.metrics if line["t"] <= t] for one in (ran, other))
    assert len(mine) == len(theirs)


def transitions_after(undisturbed, moment) -> int:
    """Transitions of the run when a round of its fit, or a step, is done."""
    kind, number = moment
    events = read_lines(undisturbed.directory / "events.jsonl")
    fitted = next(event["transitions"] for event in events if event["kind"] == "fit")
    outputs = sum(event["kind"] == "output" and event["step"] < number for event in events)
    return number if kind == "fit" else fitted + outputs + number


def local_launcher() -> Path:
    package = Path(nivp_dist.__file__).resolve().parent
    installed = package / "launch/local"
    return installed if installed.exists() else package.parent / "launch/local"


def _toml(value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _raiser(error):
    def raise_():
        raise error

    return raise_
