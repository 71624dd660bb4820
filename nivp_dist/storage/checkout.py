"""The commit of the code that runs, where it is known, read without starting git."""

import contextlib
import functools
import json
from importlib import metadata
from pathlib import Path


@functools.cache
def commit() -> str | None:
    """The commit of the checkout that this package lies in, or that pip has installed it from; else None.

    Edits of a checkout that are not committed are not seen.
    """
    root = Path(__file__).resolve().parents[2]
    with contextlib.suppress(OSError, ValueError, metadata.PackageNotFoundError):
        if (root / "pyproject.toml").is_file():
            return head(root)
        origin = json.loads(metadata.distribution("nivp_dist").read_text("direct_url.json") or "{}")
        return origin.get("vcs_info", {}).get("commit_id")
    return None


def head(root: Path) -> str | None:
    """The commit that a checkout is at; None if it cannot be found. Raises OSError if the folder is no checkout."""
    folder = root / ".git"
    if folder.is_file():  # of a worktree, which names its own folder
        folder = root / folder.read_text().partition("gitdir:")[2].strip()
    name = (folder / "HEAD").read_text().strip()
    if not name.startswith("ref:"):
        return name
    name = name.partition("ref:")[2].strip()
    common = folder / "commondir"
    shared = folder / common.read_text().strip() if common.is_file() else folder
    for place in (folder / name, shared / name):
        if place.is_file():
            return place.read_text().strip()
    lines = (shared / "packed-refs").read_text().splitlines()
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), None)
