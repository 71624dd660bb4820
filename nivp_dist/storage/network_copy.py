"""A user's network in a run directory: copies of its file and of what it imports, and the sha256 of all of them.

As with a problem, the run and those who read it later use the copies.
"""

from pathlib import Path

from nivp_dist.settings.model import Config
from nivp_dist.settings.sources import Source, modules, sha256
from nivp_dist.storage import copies

NETWORK = "network"  # the folder of the copies


def make(config: Config, directory: Path) -> tuple[Config, dict[str, str]]:
    """Copy network.file, and the modules beside it. Returns the configuration of the copy, and ``table`` of the copies.

    Raises OSError, and InputError if a module cannot be read.
    """
    if config.network.file is None:
        return config, {}
    file = Path(config.network.file)
    copied = copies.make(directory / NETWORK, file, _sources(file))
    return with_file(config, f"{NETWORK}/{file.name}"), copies.table(NETWORK, copied)


def table(config: Config) -> dict[str, str]:
    """Path in the run directory, or absolute path if there is no copy, -> sha256: of the file and what it imports."""
    return {} if config.network.file is None else copies.table(NETWORK, _sources(Path(config.network.file)))


def with_file(config: Config, file: str) -> Config:
    """The configuration with another network.file."""
    return config.model_copy(update={"network": config.network.model_copy(update={"file": file})})


def _sources(file: Path) -> list[Source]:
    return [Source(file, file.name, sha256(file)), *modules(file)]
