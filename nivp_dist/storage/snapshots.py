"""Snapshots: one npz file for each output time, written whole or not at all; equal arrays make equal files."""

import contextlib
import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nivp_dist.storage.files import write_whole

FOLDER = "snapshots"
UNREADABLE = "unreadable_snapshots"  # the folder that damaged snapshots are moved to


class Snapshot(NamedTuple):
    """A time at which the solution is stored, and its file."""

    t: float
    path: Path


def save(directory: str | Path, t: float, arrays: dict) -> Path:
    """Write snapshots/t_<t>.npz in a run directory. arrays: name -> numbers, as anything that numpy takes.

    The file holds the exact time too (array ``t``); its name gives it to six decimals, or to more where two times would
    have the same name. Raises ValueError if an array does not hold numbers, and OSError.
    """
    arrays = {name: np.asarray(value) for name, value in (arrays | {"t": float(t)}).items()}
    odd = [name for name, value in arrays.items() if value.dtype.kind not in "biufc"]
    if odd:
        raise ValueError(f"snapshot arrays must be numbers, not {', '.join(odd)}")
    folder = Path(directory) / FOLDER
    folder.mkdir(exist_ok=True)
    path = _path(folder, t)
    write_whole(path, _npz(arrays))
    return path


def list_snapshots(directory: str | Path) -> list[Snapshot]:
    """The snapshots of a run directory in the order of time. Raises OSError, and ValueError if one is damaged."""
    files = (Path(directory) / FOLDER).glob("t_*.npz")
    return sorted((Snapshot(_time(path), path) for path in files), key=lambda snapshot: snapshot.t)


def find(directory: str | Path, t: float) -> Snapshot | None:
    """The snapshot of a run directory at time t, to a relative 1e-9; None if there is none.

    Of many snapshots only those are opened whose names give that time to six decimals. Raises as ``list_snapshots``.
    """
    files = [path for path in (Path(directory) / FOLDER).glob("t_*.npz") if _may_hold(path, t)]
    near = [Snapshot(time, path) for path in files if np.isclose(time := _time(path), t, rtol=1e-9, atol=1e-12)]
    return min(near, key=lambda snapshot: abs(snapshot.t - t), default=None)


def newest(directory: str | Path) -> Snapshot | None:
    """The last snapshot of a run directory; None if there is none. Of many, only this one is opened, found by its name.

    Raises as ``list_snapshots``.
    """
    path = max((Path(directory) / FOLDER).glob("t_*.npz"), key=_named_time, default=None)
    return None if path is None else Snapshot(_time(path), path)


def digest(path: str | Path) -> str:
    """The sha256 of a snapshot's file, in hexadecimal digits. Raises OSError."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def set_aside(path: Path) -> None:
    """Move a snapshot to unreadable_snapshots/ in its run directory, in case somebody can use it. Raises OSError."""
    folder = path.parent.parent / UNREADABLE
    folder.mkdir(exist_ok=True)
    path.replace(folder / path.name)


def load(path: str | Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, np.ndarray]:
    """The arrays of a snapshot whose names are wanted; the others are not read.

    Raises OSError if it is missing, and ValueError, which names it, if it is damaged.
    """
    with _opened(path) as file:
        return {name: file[name] for name in file.files if wanted(name)}


def _path(folder: Path, t: float) -> Path:
    for decimals in range(6, 18):
        path = folder / f"t_{t:.{decimals}f}.npz"
        try:
            if not path.exists() or _time(path) == t:
                return path
        except ValueError:
            return path  # it is damaged, and will be replaced
    return path


def _may_hold(path: Path, t: float) -> bool:
    """Whether the name of a snapshot is that of time t; any name that gives no time may be."""
    named = _named_time(path)
    return named == -np.inf or bool(np.isclose(named, t, rtol=1e-9, atol=1e-6))


def _named_time(path: Path) -> float:
    """The time that the name of a snapshot gives; -inf if it gives none."""
    try:
        return float(path.stem.removeprefix("t_"))
    except ValueError:
        return -np.inf


def _time(path: Path) -> float:
    with _opened(path) as file:
        return float(file["t"])


@contextlib.contextmanager
def _opened(path: str | Path):
    try:
        with np.load(path, allow_pickle=False) as file:
            yield file
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: {error}") from None


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    """As np.savez, but without the time of day in the archive, so that repeated runs leave identical files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, arrays[name], allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0)), member.getvalue())
    return buffer.getvalue()
