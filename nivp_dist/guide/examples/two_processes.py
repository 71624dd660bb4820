# %% [markdown]
# # Two processes, a stop and a resume
#
# A job on a cluster consists of many processes, and ends at a time limit, finished or not. Here are two processes on
# this machine, whose run gets the signal of a time limit, writes a checkpoint, and goes on in a second start. The
# result has the same bits as that of a run that nobody has stopped.
#
# The equation is the heat equation on a torus, $u_t = D\,\Delta u$ in $[0, 2\pi)^2$, the shipped configuration
# `heat_periodic_2d` with a smaller network.

# %%
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import nivp_dist
from nivp_dist import open_run

folder = Path(tempfile.mkdtemp(prefix="two_processes-", dir="."))  # for all files of this example

# %% [markdown]
# ## The commands
#
# `launch/local N` starts the processes, as `srun` or `mpirun` would. It is a program of the source folder, and of the
# installed package.

# %%
package = Path(nivp_dist.__file__).parent
launcher = next(path for path in (package / "launch/local", package.parent / "launch/local") if path.exists())
options = "--network.width 8 --network.depth 1 --sampling.points 400 --fit.points 400 --fit.iterations 60"
options += " --fit.on_miss continue --integrator.t_end 1 --integrator.rtol 1e-4 --output.times [] --output.plots false"
options = options.split()


def launch(*words):
    """launch/local 2 WORDS ...: the exit code, and what the run has written."""
    command = [sys.executable, str(launcher), "2", *map(str, words)]
    print("$ launch/local 2", *[word for word in words if word not in options], "...")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


# %% [markdown]
# ## A run that nobody stops

# %%
code, written = launch("heat_periodic_2d", *options, "--output", folder / "undisturbed")
print(f"exit code {code}")
assert code == 0, written

# %% [markdown]
# ## A run that is stopped
#
# SIGTERM to any of the processes stops a run; a scheduler sends it, or SIGUSR1, before the time limit. So that the
# example does not depend on clocks, a callback sends it after twelve steps. Exit code 75 says: stopped early, with a
# checkpoint.

# %%
(folder / "limit.py").write_text('''
import os
import signal

from nivp_dist import Callback


class TimeLimit(Callback):
    """A signal of a scheduler after a number of steps."""

    steps: int = 12

    def after_step(self, view):
        if view.step == self.steps:
            os.kill(os.getpid(), signal.SIGTERM)
''')
limit = ["--callbacks.file", folder / "limit.py", "--callbacks.classes", '["TimeLimit"]']
code, written = launch("heat_periodic_2d", *options, *limit, "--output", folder / "stopped")
stopped = open_run(folder / "stopped")
print(f"exit code {code}, {stopped.summary['status']} at t = {stopped.summary['t']:.3f}")
assert code == 75 and stopped.summary["steps"] == 12, written

# %% [markdown]
# ## The resume
#
# From the newest checkpoint. On another number of processes the result is the same to rounding; on the same number, to
# the last bit.

# %%
code, written = launch("resume", folder / "stopped")
undisturbed, stopped = open_run(folder / "undisturbed"), open_run(folder / "stopped")
print(f"exit code {code}, {stopped.summary['status']} at t = {stopped.summary['t']:g}")
assert code == 0 and stopped.summary["status"] == "finished", written

t = undisturbed.times[-1]
parameters = [run.snapshot(t)["theta"] for run in (undisturbed, stopped)]
same = parameters[0].tobytes() == parameters[1].tobytes()
print(f"{len(parameters[0])} parameters of the network at t = {t:g}: {'the same bits' if same else 'they differ'}")
error = stopped.errors()["relative_l2"][-1]
print(f"relative L2 error against the Fourier series of the solution {error:.1e}")
assert same and error < 1e-2

# %% [markdown]
# ## A picture

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
grid = np.linspace(0, 2 * np.pi, 65)
x, y = np.meshgrid(grid, grid, indexing="ij")
u = stopped.solution(t)(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(x.shape)
image = left.pcolormesh(x, y, u, shading="gouraud", cmap="RdBu_r", vmin=-abs(u).max(), vmax=abs(u).max())
left.set(title=f"u at t = {t:g}", xlabel="x_1", ylabel="x_2", aspect="equal")
figure.colorbar(image, ax=left)
for run, style, name in ((undisturbed, "-", "undisturbed"), (stopped, "o", "stopped and resumed")):
    right.plot(run.metrics()["t"], run.metrics()["h"], style, fillstyle="none", label=name)
right.axvline(stopped.metrics()["t"][11], color="k", linestyle=":", label="the stop")
right.set(title="lengths of the steps", xlabel="t", ylabel="h")
right.legend()
figure.savefig(folder / "two_processes.png", dpi=120)
print(f"picture: {folder / 'two_processes.png'}")
