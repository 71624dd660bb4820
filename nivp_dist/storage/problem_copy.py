"""A user's problem in a run directory: copies of its file and of what lies beside it, and the sha256 of all it needs.

The run, its resumes and those who read it later use the copies, so that the numbers of one directory come from one
equation while the user goes on editing.
"""

from collections.abc import Iterable
from pathlib import Path

from nivp_dist.errors import InputError
from nivp_dist.settings.files import RECORD, SOURCES, read_toml
from nivp_dist.settings.model import Config
from nivp_dist.settings.sources import Source, sha256
from nivp_dist.storage import copies
from nivp_dist.storage.network_copy import NETWORK

PROBLEM = "problem"  # the folder of the copies


def make(config: Config, directory: Path, sources: Iterable[Source]) -> tuple[Config, dict[str, str]]:
    """Copy problem.file, and the sources that lie beside it. Returns the configuration of the copy, and ``table``.

    Raises OSError.
    """
    if config.problem.file is None:
        return config, {}
    file = Path(config.problem.file)
    copied = copies.make(directory / PROBLEM, file, sources)
    own = config.problem.model_copy(update={"file": f"{PROBLEM}/{file.name}"})
    return config.model_copy(update={"problem": own}), table(copied)


def table(sources: Iterable[Source]) -> dict[str, str]:
    """Path in the run directory, or absolute path if there is no copy, -> sha256."""
    return copies.table(PROBLEM, sources)


def recorded(directory: Path) -> dict[str, str]:
    """The tables of the problem and of the network of a run. Raises InputError if config.toml cannot be read."""
    return read_toml(directory / RECORD).get(SOURCES, {})


def require_unchanged(directory: Path) -> None:
    """Raises InputError if a file that decides the equation or the network is not what it was when the run began."""
    for name, expected in recorded(directory).items():
        path = directory / name  # an absolute name stays as it is
        if sha256(path) != expected:
            what = "network" if name.startswith(f"{NETWORK}/") else "equation"
            raise InputError(
                f"{path}: has changed since the run began, and decides its {what}: put it back, or start a new run"
            )
