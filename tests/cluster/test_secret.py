"""The secret of a run: from the environment, or from a file that only the user can read."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from nivp_dist.cluster.introduction import service_address
from nivp_dist.cluster.secret import LEAST_LENGTH, VARIABLE, shared_secret
from nivp_dist.errors import InputError


@pytest.fixture
def home(tmp_path):
    """An environment without NIVP_SECRET, and the file of the user."""
    return {"XDG_CONFIG_HOME": str(tmp_path)}, tmp_path / "nivp/secret"


def test_the_variable_of_the_environment_comes_first(home):
    environment, file = home
    first, second = (shared_secret("token", environment | {VARIABLE: text * 16}) for text in "ab")
    assert first != second and len(first) == 32 and not file.exists()
    assert shared_secret("other", environment | {VARIABLE: "a" * 16}) != first  # another step of the same job
    with pytest.raises(InputError, match=f"environment: {VARIABLE} must have at least {LEAST_LENGTH} characters"):
        shared_secret("token", environment | {VARIABLE: "short"})


def test_without_it_all_processes_of_a_user_share_a_file_that_nobody_else_can_read(home):
    environment, file = home
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda _: shared_secret("token", environment), range(64)))
    assert len(found) == 1 and os.listdir(file.parent) == ["secret"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and len(file.read_bytes()) == 64
    assert shared_secret("other", environment) not in found


def test_a_file_that_others_can_read_is_refused(home):
    environment, file = home
    shared_secret("token", environment)
    file.chmod(0o640)
    with pytest.raises(InputError, match="secret can be read by others: remove it, a new one will be made"):
        shared_secret("token", environment)


def test_a_file_that_is_damaged_or_cannot_be_made_is_refused(home, tmp_path):
    environment, file = home
    shared_secret("token", environment)
    file.write_bytes(b"")
    with pytest.raises(InputError, match="secret is damaged: remove it"):
        shared_secret("token", environment)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"Not a directory; set {VARIABLE} to the same random text for all processes"):
        shared_secret("token", {"XDG_CONFIG_HOME": str(tmp_path / "file")})


@pytest.mark.parametrize(
    "pairs, expected",
    [
        ([("127.0.0.1", "127.0.0.1")], "127.0.0.1"),
        ([("127.0.1.1", "127.0.1.1"), ("10.0.0.5", "10.0.0.5")], "127.0.0.1"),  # all on the host of process 0
        ([("127.0.0.1", "127.0.0.1"), ("10.0.0.5", "10.0.0.6")], "10.0.0.5"),
        ([("::1", "::1"), ("fd00::5", "fd00::6")], "fd00::5"),
        ([("10.0.0.5", "10.0.0.6"), ("10.1.0.5", "10.1.0.6")], None),  # two networks
    ],
)
def test_the_coordination_service_listens_on_the_one_address_that_is_needed(pairs, expected):
    assert service_address(pairs) == expected
