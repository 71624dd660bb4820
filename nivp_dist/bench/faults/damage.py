"""Damage to the files of a stopped run, as failing disks, full disks and people do it.

Every function here takes a run directory and a random generator, damages something, and returns in words what.
"""

import re
from collections.abc import Callable
from pathlib import Path
from random import Random

from nivp_dist.settings.files import CHANGEABLE, RECORD
from nivp_dist.storage import snapshots
from nivp_dist.storage.metrics import EVENTS, METRICS
from nivp_dist.storage.problem_copy import PROBLEM
from nivp_dist.storage.run_directory import CHECKPOINTS, SUMMARY

BLOCK = 512  # bytes that a lost sector zeroes


# Of one file ------------------------------------------------------------------------------------------


def flip(path: Path, random: Random) -> str:
    """Turn over one bit."""
    content = bytearray(path.read_bytes())
    place, bit = random.randrange(len(content)), random.randrange(8)
    content[place] ^= 1 << bit
    path.write_bytes(content)
    return f"bit {bit} of byte {place} of {path.name} flipped"


def truncate(path: Path, random: Random) -> str:
    """Cut off the end, as a crash before the data have reached the disk does; now and then all of it."""
    content = path.read_bytes()
    length = random.choice([0, random.randrange(len(content)), random.randrange(len(content))])
    path.write_bytes(content[:length])
    return f"{path.name} cut to {length} of {len(content)} bytes"


def remove(path: Path, random: Random) -> str:
    path.unlink()
    return f"{path.name} removed"


def zero(path: Path, random: Random) -> str:
    """Zero a block, or what of it lies in the file."""
    content = bytearray(path.read_bytes())
    start = random.randrange(len(content))
    end = min(start + BLOCK, len(content))
    content[start:end] = bytes(end - start)
    path.write_bytes(content)
    return f"bytes {start} to {end} of {path.name} zeroed"


def digit(path: Path, random: Random) -> str:
    """Replace a digit by another one."""
    content = bytearray(path.read_bytes())
    place = random.choice([match.start() for match in re.finditer(rb"\d", content)])
    old = chr(content[place])
    new = random.choice([other for other in "0123456789" if other != old])
    content[place] = ord(new)
    path.write_bytes(content)
    return f"digit {old} at byte {place} of {path.name} made {new}"


def line(path: Path, random: Random) -> str:
    """Take out a line."""
    lines = path.read_bytes().splitlines(True)
    number = random.randrange(len(lines))
    del lines[number]
    path.write_bytes(b"".join(lines))
    return f"line {number + 1} of {path.name} taken out"


ANY = (flip, truncate, remove, zero)


# Checkpoints ------------------------------------------------------------------------------------------


def _saved(directory: Path) -> list[Path]:
    """The checkpoints, the newest first."""
    numbered = [path for path in (directory / CHECKPOINTS).iterdir() if path.name.isdigit()]
    return sorted(numbered, key=lambda path: -int(path.name))


def _file_of(checkpoint: Path, random: Random) -> Path:
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.stat().st_size)
    return random.choice(files)


def newest_checkpoint(damage: Callable[[Path, Random], str]) -> Callable[[Path, Random], str]:
    """Damage to a file of the newest checkpoint."""
    return lambda directory, random: damage(_file_of(_saved(directory)[0], random), random)


def two_checkpoints(directory: Path, random: Random) -> str:
    return "; ".join(random.choice(ANY)(_file_of(folder, random), random) for folder in _saved(directory)[:2])


def all_checkpoints(directory: Path, random: Random) -> str:
    """Remove all checkpoints, or the manifest of each."""
    folders = _saved(directory)
    if random.random() < 0.5:
        for folder in folders:
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            folder.rmdir()
        return "all checkpoints removed"
    for folder in folders:
        truncate(folder / "manifest.json", Random(0))
    return "the manifests of all checkpoints cut"


# Other files ------------------------------------------------------------------------------------------


def metrics(directory: Path, random: Random) -> str:
    return random.choice([*ANY, digit, digit, line])(directory / METRICS, random)


def events(directory: Path, random: Random) -> str:
    return random.choice([*ANY, digit, line])(directory / EVENTS, random)


def summary(directory: Path, random: Random) -> str:
    return random.choice([*ANY, digit])(directory / SUMMARY, random)


def snapshot(directory: Path, random: Random) -> str:
    """Damage a snapshot, or put another one in its place."""
    paths = sorted((directory / snapshots.FOLDER).iterdir())
    path = random.choice(paths)
    other = random.choice(paths)
    if other != path and random.random() < 0.3:
        path.write_bytes(other.read_bytes())
        return f"{path.name} overwritten by {other.name}"
    return random.choice(ANY)(path, random)


def configuration(directory: Path, random: Random) -> str:
    """Damage config.toml, or change a setting that decides the result.

    Values that a resume may change stay as they are: another one would be a wish of the user.
    """
    path = directory / RECORD
    choice = random.choice([_setting, _setting, _flip_setting, truncate, remove, zero])
    return choice(path, random)


def _setting(path: Path, random: Random) -> str:
    """Change a number of a setting that decides the result, as an editor would."""
    lines = path.read_text("utf-8").splitlines(True)
    number = random.choice([place for place in _fixed_lines(lines) if re.search(r"= \d", lines[place])])
    before = lines[number]
    lines[number] = re.sub(r"= (\d)", lambda match: f"= {(int(match[1]) + 1) % 8 + 1}", before)
    path.write_text("".join(lines), "utf-8")
    return f"{before.strip()} in {path.name} made {lines[number].strip()}"


def _flip_setting(path: Path, random: Random) -> str:
    lines = path.read_bytes().splitlines(True)
    number = random.choice(_fixed_lines([text.decode() for text in lines]))
    content = bytearray(lines[number])
    place, bit = random.randrange(len(content) - 1), random.randrange(7)
    content[place] ^= 1 << bit
    lines[number] = bytes(content)
    path.write_bytes(b"".join(lines))
    return f"bit {bit} of byte {place} of line {number + 1} of {path.name} flipped"


def _fixed_lines(lines: list[str]) -> list[int]:
    """The numbers of the lines of settings that decide the result."""
    section, found = "", []
    for number, text in enumerate(lines):
        if text.startswith("["):
            section = text.strip("[]\n") + "."
        key, equals, _ = text.partition(" = ")
        if equals and section not in ("versions.", "sources.") and section + key not in CHANGEABLE:
            found.append(number)
    return found


def problem(directory: Path, random: Random) -> str:
    """Damage the run's copy of the file of the problem, or change a number in it."""
    path = random.choice(sorted((directory / PROBLEM).glob("*.py")))
    return random.choice([*ANY, digit, digit])(path, random)
