"""The demo's plan in a file."""

from pathlib import Path

import pytest

from tests.helpers.command_line import planner
from tests.helpers.common import DEVICES


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's plan in a file."""
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    assert planner("solve", "--devices", DEVICES, "--out", path).returncode == 0
    return path
