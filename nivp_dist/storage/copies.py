"""Copies of a user's file, and of the files beside it that it needs, in a folder of the run directory."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from nivp_dist.settings.sources import Source, sha256
from nivp_dist.storage.files import sync_tree


def make(folder: Path, file: Path, sources: Iterable[Source]) -> list[Source]:
    """Copy a file, and the sources that lie beside it, into a new folder.

    Returns the sources, those that are compared with the sha256 of their copies: they may have been edited a moment
    ago. Raises OSError.
    """
    folder.mkdir()
    shutil.copyfile(file, folder / file.name)
    copied = []
    for source in sources:
        if source.copy is not None:
            (folder / source.copy).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.path, folder / source.copy)
            if source.sha256:
                source = source._replace(sha256=sha256(folder / source.copy))
        copied.append(source)
    sync_tree(folder)
    return copied


def table(folder: str, sources: Iterable[Source]) -> dict[str, str]:
    """Path in the run directory, or absolute path if there is no copy, -> sha256, of the sources that are compared.

    folder: of the copies, in the run directory.
    """
    return {
        str(source.path) if source.copy is None else f"{folder}/{source.copy}": source.sha256
        for source in sources
        if source.sha256
    }
