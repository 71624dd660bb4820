"""The commit of a checkout, read from the files of git."""

import subprocess

import pytest

from nivp_dist.storage import checkout


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    return subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    return tmp_path


def test_the_commit_is_that_of_git(repository):
    """On a branch, with packed references, without a branch, and in a worktree."""
    assert checkout.head(repository) == git(repository, "rev-parse", "HEAD")
    git(repository, "worktree", "add", "-q", str(repository / "tree"), "-b", "other/name")
    git(repository / "tree", "commit", "-q", "--allow-empty", "-m", "two")
    assert checkout.head(repository / "tree") == git(repository / "tree", "rev-parse", "HEAD")
    assert checkout.head(repository / "tree") != checkout.head(repository)
    git(repository, "pack-refs", "--all")
    for folder in (repository, repository / "tree"):
        assert checkout.head(folder) == git(folder, "rev-parse", "HEAD")
    git(repository, "checkout", "-q", "--detach")
    assert checkout.head(repository) == git(repository, "rev-parse", "HEAD")


def test_no_checkout_is_an_error_that_the_caller_expects(tmp_path):
    with pytest.raises(OSError):
        checkout.head(tmp_path)
