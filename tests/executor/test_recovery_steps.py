"""What each step of a recovery brought: read from metrics, shown as a table, and warnings beside the prediction."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from planner.executor.bundle import bundle_manifest
from planner.executor.recovery_steps import TrainingSteps, read_steps, warnings
from planner.report.recovery_text import recovery_table
from planner.schema import Plan, PredictedAccuracy, write_document
from tests.helpers.command_line import planner
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
    epoch("fusion", 0, 0.84, accuracy_as_cut=0.01),
    epoch("fusion", 1, 0.85),
    epoch("together", 0, 0.85, accuracy_as_cut=0.85),
    epoch("together", 1, 0.9),
]
STEPS = (
    TrainingSteps("pi-1", 0.1, 0.5, 0.7),
    # Its training only harmed: the start remained.
    TrainingSteps("pi-2", 0.2, 0.8, 0.8),
    TrainingSteps("fusion", 0.01, 0.84, 0.85),
    TrainingSteps("together", 0.85, 0.85, 0.9),
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
    assert warnings((), predicting(run.plan, 0.96, 0.96), 10) == []


def test_the_table_has_a_row_for_each_training() -> None:
    """A fusion is not cut; what is trained together, and sub-models of other recipes, are not refitted."""
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
        ["fused", "-", "84.0%", "85.0%"],
        ["fused, trained together", "-", "-", "90.0%"],
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Three small sub-models."""
    return make_small_run(tmp_path_factory.mktemp("run"))


def predicting(plan: Plan, accuracy: float, low: float, epochs: float = 10) -> Plan:
    """Return the plan with another predicted accuracy."""
    predicted = PredictedAccuracy(accuracy=accuracy, loss=0.01, low=low, high=0.99, epochs=epochs)
    return plan.replace(predicted_accuracy=predicted)


def test_a_result_far_below_the_interval_is_a_warning(run: SmallRun) -> None:
    """It is far if it is more than 5 points below the interval's lower end, however high the prediction itself is."""
    assert warnings(STEPS, predicting(run.plan, 0.97, 0.955), 10) == [
        "the fused accuracy is 90.0% on validation images, the plan predicts 97.0% (95.5% to 99.0%): train longer, or "
        "ask for a smaller drop of accuracy, before you deploy."
    ]
    assert warnings(STEPS, predicting(run.plan, 0.98, 0.949), 10) == []
    assert warnings(STEPS, run.plan.replace(predicted_accuracy=None), 10) == []
    assert warnings([TrainingSteps("fusion", None, None, None)], predicting(run.plan, 0.96, 0.96), 10) == []
    # Without a training, what the start reached counts.
    assert len(warnings([TrainingSteps("fusion", 0.1, 0.9, None)], predicting(run.plan, 0.97, 0.955), 10)) == 1


@pytest.mark.parametrize(
    ("predicted", "epochs", "said"),
    [
        (10, 2, "the prediction is for 10 epochs of retraining; this run had 2."),
        (1, 0.25, "the prediction is for 1 epoch of retraining; this run had 0.25."),
        (0.5, 0, "the prediction is for 0.5 epochs of retraining; this run had 0."),
        (10, 10, None),
        (10, 30, None),
        (0, 0, None),
    ],
)
def test_less_training_than_predicted_for_is_a_warning(
    run: SmallRun, predicted: float, epochs: float, said: str | None
) -> None:
    """However good the result, and where it is not known; more training, or none asked for, is none."""
    for steps in ((), STEPS):
        found = warnings(steps, predicting(run.plan, 0.9, 0.88, predicted), epochs)
        assert found == ([] if said is None else [said])


def test_both_reasons_to_doubt_are_named(run: SmallRun) -> None:
    """The result first, then what may explain it."""
    found = warnings(STEPS, predicting(run.plan, 0.97, 0.955), 2)
    assert ["90.0%" in found[0], "this run had 2." in found[1], len(found)] == [True, True, 2]


def test_execute_returns_the_steps_of_its_bundle(run: SmallRun, tmp_path: Path) -> None:
    """Again when the bundle is there already; the last step is the joint training's."""
    bundle = execute_run(run, tmp_path / "bundle")
    steps = read_steps(bundle)
    assert [step.name for step in steps] == ["a", "b", "c", "fusion", "together"]
    assert all(step.as_cut is not None and step.trained is not None for step in steps)
    # What is fitted before all learn together changes no answer.
    assert steps[-1].as_cut == steps[-1].start
    assert bundle_manifest(bundle).epochs == 3


def test_the_command_says_that_it_trained_less(run: SmallRun, tmp_path: Path) -> None:
    """Also when the bundle is there already, and the number of epochs is its own."""
    plan, bundle = tmp_path / "plan.json", execute_run(run, tmp_path / "bundle")
    write_document(plan, run.plan)
    done = planner("execute", plan, "--out", bundle, "--model", run.card, "--minutes", "1")
    assert done.returncode == 0, done.stderr
    assert "Warning: the prediction is for 10 epochs of retraining; this run had 3.\n" in done.stderr
