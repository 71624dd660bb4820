"""A copy of a user's file of callbacks in the run directory, with the modules beside it that it imports.

The run uses the copy. It decides nothing of the result, so that a resume may have another one.
"""

import itertools
from pathlib import Path

from nivp_dist.settings.files import RECORD, read_config
from nivp_dist.settings.model import Config
from nivp_dist.settings.sources import modules_beside, sha256
from nivp_dist.storage import copies

CALLBACKS = "callbacks"  # the folder of the copies


def make(config: Config, directory: Path) -> Config:
    """The configuration with callbacks.file relative to the run directory, after a copy if it lies elsewhere.

    A further copy gets a folder of its own, because the old configuration may have to be put back. Raises OSError.
    """
    if config.callbacks.file is None:
        return config
    file = Path(config.callbacks.file)
    if not file.is_relative_to(directory):
        folder = _free(directory)
        copies.make(folder, file, modules_beside(file))
        file = folder / file.name
    return with_file(config, file.relative_to(directory).as_posix())


def reuse(config: Config, directory: Path) -> Config:
    """The configuration with the run's copy in the place of callbacks.file, if it has the same contents."""
    kept, file = read_config(directory / RECORD).callbacks.file, config.callbacks.file
    if kept is not None and file is not None and sha256(Path(kept)) == sha256(Path(file)):
        return with_file(config, kept)
    return config


def with_file(config: Config, file: str) -> Config:
    """The configuration with another callbacks.file."""
    return config.model_copy(update={"callbacks": config.callbacks.model_copy(update={"file": file})})


def _free(directory: Path) -> Path:
    names = itertools.chain([CALLBACKS], (f"{CALLBACKS}-{number}" for number in itertools.count(2)))
    return next(directory / name for name in names if not (directory / name).exists())
