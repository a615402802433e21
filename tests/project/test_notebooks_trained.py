"""The notebooks that take longest, so that another worker may have them; see test_notebooks.py."""

import pytest

from tests.helpers.notebook_runs import assert_fresh


@pytest.mark.parametrize("name", ["04_execute", "05_why_not"])
def test_what_is_stored_is_what_comes_out(name: str) -> None:
    """Executed in a fresh kernel, every cell says what is stored; of cells that train, but for the numbers."""
    assert_fresh(name)
