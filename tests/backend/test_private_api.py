"""Private names of JAX and Orbax: each still exists, and still does what we use it for.

A failure here means that a new release of a library has changed: adapt nivp_dist/backend/private_api.py. Each program
runs in a process of its own, because the functions change their library for the rest of the process.
"""

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest
from jax._src.lru_cache import LRUCache

import nivp_dist
from nivp_dist.backend import private_api

TESTS = Path(__file__).parents[1]  # where a program finds disks.py

COORDINATION = """
import socket, jax
from nivp_dist.backend import private_api

assert private_api.coordination_client() is None
with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
jax.distributed.initialize(address, num_processes=1, process_id=0)
client = private_api.coordination_client()
client.key_value_set_bytes("nivp/key", b"value")
assert client.blocking_key_value_get_bytes("nivp/key", 1000) == b"value"
client.wait_at_barrier("nivp/barrier", 1000)
client.key_value_delete("nivp/key")
"""

# A process that counts itself as number 1 of a group compiles a program, with a cache in the folder sys.argv[1].
COMPILE = """
import sys, warnings
import jax
from jax._src import distributed
from nivp_dist.backend import private_api

{preparation}
distributed.global_state.process_id = {number}
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    jax.jit(lambda x: x * 2.0 + 1.0)(1.0).block_until_ready()
assert distributed.global_state.process_id == {number}
print(len([one for one in caught if "compilation cache" in str(one.message)]))
"""

SAVE_WITHOUT_LOCKS = """
import sys
import numpy as np
import orbax.checkpoint as ocp
from disks import forbid_locks
from nivp_dist.backend import private_api

{preparation}
forbid_locks()
with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
    checkpointer.save(sys.argv[1] + "/checkpoint", args=ocp.args.StandardSave({{"theta": np.arange(4.0)}}))
"""


def python(code: str, *arguments) -> subprocess.CompletedProcess:
    """A program in a fresh process, which also finds the helpers of the tests."""
    code = f"import sys; sys.path.append({str(TESTS)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


def compile_in(folder: Path, preparation: str = "", number: int = 0) -> tuple[dict[str, bytes], int]:
    """Compile a program with a cache: the cached programs by file name, and the number of warnings about the cache."""
    done = python(COMPILE.format(preparation=preparation, number=number), folder)
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_bytes() for path in folder.glob("*-cache")}, int(done.stdout)


def test_the_coordination_client_carries_messages():
    done = python(COORDINATION)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("preparation", "writes"), [("", False), ("private_api.write_compilation_cache_from_every_process()", True)]
)
def test_process_one_writes_the_compilation_cache_only_if_we_let_it(tmp_path, preparation, writes):
    entries, warnings = compile_in(tmp_path, preparation, number=1)
    assert (bool(entries), warnings) == (writes, 0)


@pytest.mark.parametrize(
    ("preparation", "replaces"), [("", False), ("private_api.delete_unreadable_cache_entries()", True)]
)
def test_an_incomplete_cache_entry_is_replaced_only_if_we_delete_it(tmp_path, preparation, replaces):
    whole, _ = compile_in(tmp_path)
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    after, warnings = compile_in(tmp_path, preparation)
    assert whole.keys() == after.keys() and whole
    assert all((len(after[name]) > len(whole[name]) // 2) is replaces for name in whole)
    assert (warnings == 0) is replaces


def test_an_entry_of_the_cache_is_whole_or_not_there_and_a_full_disk_is_reported_once(tmp_path, monkeypatch):
    monkeypatch.setattr(LRUCache, "put", getattr(LRUCache.put, "__wrapped__", LRUCache.put))
    failures, cache, write, attempts = [], LRUCache(str(tmp_path), max_size=-1), Path.write_bytes, []
    private_api.write_whole_cache_entries(failures.append)

    def write_what_fits(path, content):
        attempts.append(path.name)
        write(path, content[:100])
        assert cache.get("large") is None  # another run would read half of it
        if len(content) > 100:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_what_fits)
    for name, content in (("small", b"program"), ("small", b"other"), ("large", bytes(101)), ("larger", bytes(101))):
        cache.put(name, content)
    assert cache.get("small") == b"program" and cache.get("large") is None
    assert [path.name for path in tmp_path.iterdir()] == ["small-cache"] and len(attempts) == 2
    assert [error.strerror for error in failures] == ["No space left on device"]
    put = LRUCache.put
    private_api.write_whole_cache_entries(print)
    assert LRUCache.put is put


def test_where_jax_has_no_such_cache_nothing_is_changed(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax._src.lru_cache", None)
    private_api.write_whole_cache_entries(print)


@pytest.mark.parametrize(
    ("preparation", "saves"), [("", False), ("private_api.write_checkpoints_without_file_locks()", True)]
)
def test_orbax_saves_on_a_file_system_without_locks_only_with_our_switch(tmp_path, preparation, saves):
    done = python(SAVE_WITHOUT_LOCKS.format(preparation=preparation), tmp_path)
    assert (done.returncode == 0) is saves, done.stderr
    assert saves or "lock" in done.stderr.lower()


@pytest.mark.parametrize("function", ["write_compilation_cache_from_every_process", "delete_unreadable_cache_entries"])
def test_a_second_call_changes_nothing_further(function):
    code = "from jax._src import compilation_cache, compiler; from nivp_dist.backend import private_api\n"
    code += "names = lambda: (compiler._cache_write, compilation_cache.get_executable_and_time)\n"
    code += f"private_api.{function}(); first = names(); private_api.{function}(); assert names() == first"
    assert python(code).returncode == 0


@pytest.mark.parametrize(
    ("missing", "function"),
    [
        ("jax._src.compiler", "write_compilation_cache_from_every_process"),
        ("jax._src.compilation_cache", "delete_unreadable_cache_entries"),
        ("orbax.checkpoint._src.serialization.tensorstore_utils", "write_checkpoints_without_file_locks"),
    ],
)
def test_a_missing_private_name_is_no_error(missing, function):
    code = "import sys, jax, orbax.checkpoint; from nivp_dist.backend import private_api\n"
    module, name = missing.rsplit(".", 1)
    code += f"import {module} as module; vars(module).pop({name!r}, None); sys.modules[{missing!r}] = None\n"
    assert python(code + f"private_api.{function}()").returncode == 0


def test_no_other_module_uses_private_names_of_a_library():
    """Neither modules such as jax._src, nor attributes of a library that begin with an underscore."""
    private = re.compile(r"\b(jax|jaxlib|orbax|ocp|jnp|lax|tensorstore|flax|optax)(\.\w+)*\._[a-z]")
    package = Path(nivp_dist.__file__).parent
    found = [path.name for path in package.rglob("*.py") if private.search(path.read_text())]
    assert found == ["private_api.py"]
