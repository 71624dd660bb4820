"""Which folder holds compiled programs, and when it is refused."""

import os
import time
from pathlib import Path

import jax
import pytest

from nivp_dist.cluster import compilation_cache
from nivp_dist.cluster.topology import Topology
from nivp_dist.settings.model import ClusterSettings


@pytest.fixture
def enabled(monkeypatch, tmp_path):
    """A function (setting, processes) -> (the folder of the cache or None, warnings)."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("nivp_dist.backend.private_api.write_compilation_cache_from_every_process", lambda: None)
    monkeypatch.setattr("nivp_dist.backend.private_api.delete_unreadable_cache_entries", lambda: None)
    monkeypatch.setattr("nivp_dist.backend.private_api.write_whole_cache_entries", lambda failed: None)
    monkeypatch.setattr(compilation_cache, "_folder_in_use", "")
    present = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)

    def enabled(setting, processes=1, index=0):
        changed, warnings = {}, []
        with monkeypatch.context() as patch:
            patch.setattr(jax.config, "update", changed.__setitem__)
            settings = ClusterSettings(compilation_cache=setting)
            compilation_cache.enable(settings, Topology(processes, index, "test"), warnings.append)
        return changed.get("jax_compilation_cache_dir"), warnings

    yield enabled
    jax.config.update("jax_compilation_cache_dir", present)


def test_there_is_a_cache_by_default(enabled, tmp_path):
    folder, warnings = enabled("auto")
    assert folder.startswith(str(tmp_path / "cache/nivp/compiled-")) and warnings == []
    assert enabled("auto", processes=2) == (folder, [])
    assert enabled("off") == (None, [])
    assert enabled(str(tmp_path / "own")) == (str(tmp_path / "own"), [])
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_cache_that_others_can_write_is_refused(enabled, tmp_path, mode):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(mode)
    folder, (warning,) = enabled(str(tmp_path / "shared"))
    assert folder is None
    assert warning.startswith(f"no compilation cache: {tmp_path}/shared belongs to others or can be written by them: ")


def test_a_cache_that_cannot_be_made_is_a_warning(enabled, tmp_path):
    (tmp_path / "file").touch()
    folder, (warning,) = enabled(str(tmp_path / "file/cache"))
    assert folder is None
    mend = 'name another folder, or set cluster.compilation_cache = "off"'
    assert warning == f"no compilation cache: {tmp_path}/file/cache: Not a directory; {mend}"


def test_a_cache_that_cannot_be_written_is_a_warning(enabled, tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir(mode=0o700)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # permissions do not bind root
    folder, (warning,) = enabled(str(tmp_path / "cache"))
    assert folder is None
    assert warning.startswith(f"no compilation cache: {tmp_path}/cache cannot be written: chmod u+wx, or name another")


def test_an_unknown_home_directory_is_a_warning(enabled, monkeypatch):
    def unknown(*_):
        raise KeyError("uid not found")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert enabled("auto") == (None, [])  # as a user of a container expects
    for setting, processes in (("~/programs", 1), ("auto", 2)):
        folder, (warning,) = enabled(setting, processes)
        assert folder is None
        assert warning == "no compilation cache: no home directory is known; set cluster.compilation_cache"


def test_a_cache_that_jax_has_already_is_left_as_it_is(enabled, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "of the user"))
    assert enabled("auto") == enabled(str(tmp_path / "own")) == (None, [])


def fill(folder, **used):
    """Programs of 100 bytes each, used so many seconds after 1970."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, seconds in used.items():
        path = folder / name.replace("_", "-")
        path.write_bytes(bytes(100))
        os.utime(path, (seconds, seconds))


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_the_programs_that_were_used_longest_ago_are_deleted(tmp_path):
    fill(tmp_path, a_cache=1e9, b_cache=3e9, c_cache=2e9, d_unfinished=1e9, e_unfinished=time.time(), other=1e9)
    compilation_cache.prune(tmp_path, 300)
    assert names(tmp_path) == {"a-cache", "b-cache", "c-cache", "e-unfinished", "other"}
    compilation_cache.prune(tmp_path, 299)
    compilation_cache.prune(tmp_path, 299)
    assert names(tmp_path) == {"b-cache", "c-cache", "e-unfinished", "other"}
    compilation_cache.prune(tmp_path / "none", 0)


def test_only_process_0_deletes_and_only_in_the_folder_of_its_own(enabled, tmp_path, monkeypatch):
    monkeypatch.setattr(compilation_cache, "MOST_BYTES", 150)
    folder = Path(enabled("auto")[0])
    fill(folder, a_cache=1e9, b_cache=2e9)
    fill(tmp_path / "named", a_cache=1e9, b_cache=2e9)
    (tmp_path / "named").chmod(0o700)
    for setting, index in (("auto", 1), (str(tmp_path / "named"), 0)):
        enabled(setting, processes=2, index=index)
    assert names(folder) == names(tmp_path / "named") == {"a-cache", "b-cache"}
    enabled("auto")
    assert names(folder) == {"b-cache"}
