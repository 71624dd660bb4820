"""The direction of imports between the rooms of the package: a room imports only those that stand before it."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import nivp_dist

PACKAGE = Path(nivp_dist.__file__).parent
EXAMPLES = PACKAGE / "guide/examples"  # programs of users, which import what users do
NUMERICS = {"network", "points", "galerkin", "fitting", "monitoring", "integration", "run"}
# Every room with the rooms that it may import: README, "How the code is laid out". The order is one of dependence.
ROOMS = {
    "errors": set(),
    "formatting": set(),
    "backend": {"errors"},
    "settings": {"errors"},
    "storage": {"errors", "settings", "backend"},
    "cluster": {"errors", "settings", "storage", "backend"},
    "problems": {"errors", "settings", "backend"},
    "callbacks": {"errors", "settings", "storage", "problems"},
    "network": {"errors", "settings", "backend", "problems"},
    "points": {"errors", "settings", "backend", "problems"},
    "galerkin": {"errors", "settings", "backend", "problems", "network", "points"},
    "fitting": {"errors", "settings", "backend", "problems", "network", "points", "galerkin"},
    "monitoring": {"errors", "settings", "backend", "problems", "points"},
    "integration": {"errors", "settings", "backend", "points", "network", "galerkin", "monitoring"},
    "run": {"errors", "settings", "backend", "formatting", "storage", "cluster", "problems", "callbacks"}
    | NUMERICS - {"run"},
    "batch": {"errors", "settings", "storage", "problems", "callbacks"},
    "report": {"errors", "formatting", "settings", "storage", "problems", "points", "run", "batch"},
}
ROOMS["export"] = {"errors", "storage", "run"}
ROOMS["guide"] = {"errors", "settings"}
ROOMS["api"] = set(ROOMS)
ROOMS["bench"] = set(ROOMS)
ROOMS["studies"] = set(ROOMS)
ROOMS["cli"] = set(ROOMS)
ROOMS["__main__"] = {"cli"}


def imports(path: Path) -> set[str]:
    """The rooms that a module imports, at its top and inside of functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "nivp_dist":
            found |= {alias.name for alias in node.names} - {"__version__"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nivp_dist."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("nivp_dist.")}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: a relative import"
    return found


@pytest.fixture(scope="module")
def arrows() -> dict[str, set[str]]:
    """room -> the other rooms that its modules import."""
    found = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room != "__init__" and path.parent != EXAMPLES:
            found[room] |= imports(path) - {room}
    return found


def test_every_room_is_known(arrows):
    assert set(arrows) <= set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_stands_before_it(arrows, room):
    assert arrows[room] <= ROOMS[room]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_imports_what_users_do(path):
    assert imports(path) <= {*nivp_dist.__all__, "problems"}


def test_the_allowed_imports_have_no_circle():
    order = list(ROOMS)
    for room, allowed in ROOMS.items():
        assert all(order.index(other) < order.index(room) for other in allowed)


@pytest.mark.parametrize("room", ["cluster", "batch", "storage", "settings"])
def test_processes_jobs_and_files_know_nothing_of_the_numerics(arrows, room):
    assert not arrows[room] & NUMERICS
