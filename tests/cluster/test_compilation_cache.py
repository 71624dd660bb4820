"""Which folder holds compiled programs, and when it is refused."""

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

    def enabled(setting, processes=2):
        changed, warnings = {}, []
        with monkeypatch.context() as patch:
            patch.setattr(jax.config, "update", changed.__setitem__)
            settings = ClusterSettings(compilation_cache=setting)
            compilation_cache.enable(settings, Topology(processes, 0, "test"), warnings.append)
        return changed.get("jax_compilation_cache_dir"), warnings

    return enabled


def test_several_processes_have_a_cache_by_default_and_one_has_none(enabled, tmp_path):
    folder, warnings = enabled("auto")
    assert folder.startswith(str(tmp_path / "cache/nivp/compiled-")) and warnings == []
    assert enabled("auto", processes=1) == enabled("off") == (None, [])
    assert enabled(str(tmp_path / "own"), processes=1) == (str(tmp_path / "own"), [])
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
    assert folder is None and warning == f"no compilation cache: {tmp_path}/file/cache: Not a directory"


def test_a_cache_that_cannot_be_written_is_a_warning(enabled, tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir(mode=0o700)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # permissions do not bind root
    folder, (warning,) = enabled(str(tmp_path / "cache"))
    assert folder is None
    assert warning == f"no compilation cache: {tmp_path}/cache cannot be written: chmod u+wx, or name another"


def test_an_unknown_home_directory_is_a_warning(enabled, monkeypatch):
    def unknown(*_):
        raise KeyError("uid not found")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.delenv("HOME", raising=False)
    folder, (warning,) = enabled("~/programs")
    assert folder is None
    assert warning == "no compilation cache: no home directory is known; set cluster.compilation_cache"
