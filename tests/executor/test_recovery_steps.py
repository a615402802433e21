"""What each step of a recovery brought: read from metrics, shown as a table, and a warning far below the plan."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from planner.executor.recovery_steps import TrainingSteps, read_steps, warning
from planner.report.recovery_text import recovery_table
from planner.schema import Plan, PredictedAccuracy
from tests.helpers.small_run import SmallRun, execute_run, make_small_run


def epoch(training: str, number: int, accuracy: float, **changes: Any) -> dict[str, Any]:
    """Return a line of metrics."""
    line = {"training": training, "epoch": number, "held_accuracy": accuracy, "accuracy_as_cut": None, "best": True}
    return line | changes


LINES = [
    epoch("pi-1", 0, 0.5, accuracy_as_cut=0.1),
    epoch("pi-1", 1, 0.7),
    epoch("pi-1", 2, 0.6, best=False),
    epoch("pi-2", 0, 0.8, accuracy_as_cut=0.2),
    epoch("pi-2", 1, 0.3, best=False),
    epoch("fusion", 0, 0.01),
    epoch("fusion", 1, 0.85),
    epoch("together", 0, 0.85),
    epoch("together", 1, 0.9),
]
STEPS = (
    TrainingSteps("pi-1", 0.1, 0.5, 0.7),
    # Its training only harmed: the start remained.
    TrainingSteps("pi-2", 0.2, 0.8, 0.8),
    TrainingSteps("fusion", None, 0.01, 0.85),
    TrainingSteps("together", None, 0.85, 0.9),
)


def test_steps_are_read_from_metrics(tmp_path: Path) -> None:
    """As cut and start are of epoch 0, trained is of the best epoch, which may be the start."""
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    assert read_steps(tmp_path) == STEPS


def test_a_device_may_be_called_as_a_fusions_training(tmp_path: Path) -> None:
    """Each start begins another training, whatever its name."""
    lines = [epoch("fusion", 0, 0.5, accuracy_as_cut=0.1), epoch("fusion", 1, 0.7), *LINES[-4:]]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_steps(tmp_path) == (TrainingSteps("fusion", 0.1, 0.5, 0.7), *STEPS[-2:])


@pytest.mark.parametrize("content", [None, "", "{}\n", '{"training": "a", "epoch": 1, "best": true}\n', "no JSON"])
def test_metrics_that_are_gone_or_older_are_no_steps(tmp_path: Path, run: SmallRun, content: str | None) -> None:
    """A finished bundle does without them, and there is nothing to warn of."""
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    assert read_steps(tmp_path) == ()
    assert warning((), promising(run.plan, 0.96, 0.0)) is None


def test_the_table_has_a_row_for_each_training() -> None:
    """A fusion is neither cut nor refitted; sub-models of other recipes are not refitted."""
    console = Console(width=80)
    with console.capture() as capture:
        console.print(recovery_table([TrainingSteps("a device", None, 0.25, 0.5), *STEPS]))
    rows = [
        [cell.strip() for cell in line.strip("│ \n").split("│")]
        for line in capture.get().splitlines()
        if line.startswith("│")
    ]
    assert rows == [
        ["a device", "25.0%", "-", "50.0%"],
        ["pi-1", "10.0%", "50.0%", "70.0%"],
        ["pi-2", "20.0%", "80.0%", "80.0%"],
        ["fused", "-", "-", "85.0%"],
        ["fused, trained together", "-", "-", "90.0%"],
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Three small sub-models."""
    return make_small_run(tmp_path_factory.mktemp("run"))


def promising(plan: Plan, accuracy: float, error: float) -> Plan:
    """Return the plan with another predicted accuracy."""
    return plan.replace(predicted_accuracy=PredictedAccuracy(accuracy=accuracy, error=error))


def test_a_result_far_below_the_plan_is_a_warning(run: SmallRun) -> None:
    """It is far if it lacks more than three errors of the prediction and more than 5 points."""
    message = warning(STEPS, promising(run.plan, 0.96, 0.01))
    assert message is not None
    assert message.startswith("the fused accuracy is 90.0% on validation images, the plan promised 96.0%: train longer")
    assert warning(STEPS, promising(run.plan, 0.96, 0.021)) is None
    assert warning(STEPS, promising(run.plan, 0.949, 0.0)) is None
    assert warning(STEPS, run.plan.replace(predicted_accuracy=None)) is None
    assert warning([TrainingSteps("fusion", None, None, None)], promising(run.plan, 0.96, 0.0)) is None


def test_execute_returns_the_steps_of_its_bundle(run: SmallRun, tmp_path: Path) -> None:
    """Again when the bundle is there already; the last step is the joint training's."""
    bundle = execute_run(run, tmp_path / "bundle")
    steps = read_steps(bundle)
    assert [step.name for step in steps] == ["a", "b", "c", "fusion", "together"]
    assert all(step.as_cut is not None for step in steps[:3])
    assert all(step.as_cut is None for step in steps[3:])
