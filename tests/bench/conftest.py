"""Everything here compiles fast."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def whole_package(fast_compilation):
    """Every test here compiles fast."""
