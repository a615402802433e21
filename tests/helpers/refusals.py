"""The form of an error about a file."""

from pathlib import Path

import pytest

from planner.errors import InputError


def assert_sentence(error: pytest.ExceptionInfo[InputError], path: Path) -> None:
    """Assert that an error is one line that begins with the file and ends as a sentence does."""
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert message[-1] in ".?", message
