"""The slowest notebooks, in a file of their own to run in parallel; see test_notebooks.py."""

import pytest

from tests.helpers.notebook_runs import assert_fresh


@pytest.mark.parametrize("name", ["04_execute", "05_why_not"])
def test_stored_outputs_are_up_to_date(name: str) -> None:
    """Executed in a fresh kernel, every cell has its stored output, except for numbers of trainings."""
    assert_fresh(name)
