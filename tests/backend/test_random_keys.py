"""Keys of random numbers are derived in one module."""

import re
from pathlib import Path

import nivp_dist

PACKAGE = Path(nivp_dist.__file__).parent


def test_no_other_module_of_a_run_derives_a_key():
    """The benchmarks, which are no runs, have keys of their own."""
    derives = re.compile(r"fold_in\(|random\.split\(|wrap_key_data\(|PRNGKey\(")
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "bench" not in path.parts and derives.search(path.read_text())
    }
    assert found == {"backend/random_keys.py"}
