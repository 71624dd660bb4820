"""The secret with which the processes of a run authenticate everything that they send to each other.

It comes from the variable NIVP_SECRET, which launch/local and the batch scripts of `nivp submit` fill with random text,
and otherwise from a file that only the user can read. It is never part of a command line, which all users can see.
"""

import contextlib
import hmac
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from nivp_dist.errors import InputError

VARIABLE = "NIVP_SECRET"
LEAST_LENGTH = 16  # characters; a shorter secret could be guessed
REMEDY = f"set {VARIABLE} to the same random text for all processes, for example `export {VARIABLE}=$(uuidgen)`"


def shared_secret(token: str, environment: Mapping[str, str] = os.environ) -> bytes:
    """The secret of the group with this token (``topology.Meeting``).

    Raises InputError if NIVP_SECRET is too short, or the file of the user cannot be used.
    """
    text = environment.get(VARIABLE)
    if text and len(text) < LEAST_LENGTH:
        raise InputError(f"environment: {VARIABLE} must have at least {LEAST_LENGTH} characters")
    return derive(text.encode() if text else _key_of_user(environment), token.encode())


def derive(secret: bytes, purpose: bytes) -> bytes:
    """Another secret of 32 bytes for one purpose. It does not reveal the first."""
    return hmac.digest(secret, purpose, "sha256")


def _key_of_user(environment: Mapping[str, str]) -> bytes:
    """The content of ~/.config/nivp/secret. The first process of the user that needs the file makes it."""
    path = _path(environment)
    try:
        if not path.exists():
            _create(path)
        with open(path, "rb") as file:
            status, key = os.fstat(file.fileno()), file.read(1000)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; {REMEDY}") from None
    if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise InputError(f"{path} can be read by others: remove it, a new one will be made")
    if len(key) < LEAST_LENGTH:
        raise InputError(f"{path} is damaged: remove it, a new one will be made")
    return key


def _path(environment: Mapping[str, str]) -> Path:
    try:
        folder = environment.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    except RuntimeError:  # there is no home directory
        raise InputError(f"there is no home directory for the secret of the run: {REMEDY}") from None
    return Path(folder) / "nivp" / "secret"


def _create(path: Path) -> None:
    """Make the file. If several processes do it at once, the file of one is complete and all others use it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f".secret-{secrets.token_hex(8)}")
    descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(secrets.token_hex(32).encode())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(own, path)
    finally:
        own.unlink()
