"""The demo, planned once."""

from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.helpers.command_line import COUNTED, planner
from tests.helpers.common import DEVICES


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[CompletedProcess[str], Path]:
    """What `planner solve` printed about the demo's plan, and the plan's file."""
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    result = planner("solve", "--devices", DEVICES, *COUNTED, "--out", path)
    assert result.returncode == 0, result.stderr
    return result, path


@pytest.fixture(scope="session")
def plan_file(demo: tuple[CompletedProcess[str], Path]) -> Path:
    """The demo's plan in a file."""
    return demo[1]
