"""Reports: the numbers are the plan's, and the tables are readable at 80 columns."""

import io

import pytest
from rich.console import Console, RenderableType

from planner.library import load_fleet, load_profile
from planner.report.frames import classes_frame, devices_frame, sizes_frame
from planner.report.text import evaluation_text, plan_text
from planner.schema import Evaluation, Fleet, Goal, Plan, Profile, Size
from planner.solver import solve
from tests.helpers.common import DEVICES
from tests.helpers.drawn_plan import many

Solved = tuple[Plan, Profile, Fleet]


@pytest.fixture(scope="module")
def solved() -> Solved:
    """The demo's plan, its profile and its fleet."""
    profile, fleet = load_profile("digits-vit"), load_fleet(DEVICES)
    return solve(profile, fleet, Goal(max_accuracy_drop=0.05)), profile, fleet


@pytest.fixture
def evaluation() -> Evaluation:
    """An evaluation of two classes and two devices, in round numbers."""
    return Evaluation.model_validate(
        {
            "num_images": 20,
            "whole_accuracy": 0.95,
            "fused_accuracy": 0.9,
            "whole_by_class": {"cat": 1.0, "dog": 0.9},
            "fused_by_class": {"cat": 0.9, "dog": 0.9},
            "without_device": {"a": 0.5, "b": 0.85},
            "without_device_by_class": {"a": {"cat": 0.1, "dog": 0.9}, "b": {"cat": 0.9, "dog": 0.8}},
            "whole": Size(params=1000, macs=4000).model_dump(),
            "devices": {"a": {"params": 250, "macs": 1000}, "b": {"params": 500, "macs": 4000}},
        }
    )


def printed(*reports: RenderableType, width: int = 80) -> str:
    """Return the text on a terminal of this width."""
    file = io.StringIO()
    Console(file=file, width=width).print(*reports)
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    return text


def test_a_row_for_each_device_with_the_plans_numbers(solved: Solved) -> None:
    """Used devices come first, then idle ones, with the plan's memory, latency and retention."""
    plan, profile, fleet = solved
    frame = devices_frame(plan, profile, fleet)
    assert list(frame.index) == [a.device for a in plan.assignments] + list(plan.idle)
    for a in plan.assignments:
        row = frame.loc[a.device]
        assert (row["memory_bytes"], row["latency_us"], row["classes"]) == (a.memory_bytes, a.latency_us, a.classes)
        assert row["heads"] == sum(map(len, a.kept_heads))
        assert row["least_retention"] == min(a.retention.values())
    assert list(frame.index[frame["bottleneck"].fillna(False).astype(bool)]) == [plan.bottleneck.device]


def test_the_plan_names_bottleneck_bound_gap_and_idle_devices(solved: Solved) -> None:
    """The text has the bottleneck, bound, gap and idle devices, and marks estimates."""
    plan, profile, fleet = solved
    text = printed(plan_text(plan, profile, fleet))
    assert f"latency {plan.latency_us / 1000:.1f} ms" in text
    assert f"bound {plan.bound_us / 1000:.1f} ms" in text
    assert f"{plan.bottleneck.device} is the bottleneck" in text
    assert "estimated from declared MAC rates" in text
    for name in plan.idle:
        assert name in text


def test_accuracy_and_floors_are_a_line_each(solved: Solved) -> None:
    """The lines have prediction, interval and what they hold for; floors, and the bound for any floors."""
    plan, profile, fleet = solved
    predicted = {"accuracy": 0.962, "loss": 0.02, "low": 0.943, "high": 0.977, "epochs": 10}
    stated = plan.model_dump() | {"predicted_accuracy": predicted, "retention_floor": 0.4074, "goal_bound_us": 2190}

    def lines(**changes: object) -> list[str]:
        return printed(plan_text(Plan.model_validate(stated | changes), profile, fleet)).splitlines()

    shown = lines()
    assert "Predicted accuracy 96.2% (94.3% to 97.7%) after 10 epochs; unsplit 98.2%." in shown
    assert "Bound at retention floors of 0.41; no plan within the drop takes under 2.2 ms." in shown
    untrained = lines(predicted_accuracy=predicted | {"epochs": 0})
    assert "Predicted accuracy 96.2% (94.3% to 97.7%) without retraining; unsplit 98.2%." in untrained
    # Where accuracy is the objective, its bound is for any floors; floors that were given need no word.
    protected = "Each class is protected by retention floors of 0.41; the bound holds for any."
    assert protected in lines(goal_bound_us=None)
    assert not any("floors" in line for line in lines(goal_bound_us=None, retention_floor=None))


def test_a_fleet_of_hundreds_has_rows_for_the_slowest() -> None:
    """Of 230 devices in use, pi-31 to pi-230 have rows, as the i-th computes i ms; 70 of kind board are idle."""
    text = printed(plan_text(*many(300, 230)))
    rows = [line.split()[1] for line in text.splitlines() if line.startswith("│")]
    assert rows == [f"pi-{i}" for i in range(31, 231)]
    assert "30 more devices are in use, none of them slower." in text
    assert "70 more devices are idle: 70 board." in text


def test_ratios_are_whole_to_part_and_the_fleet_is_the_sum(evaluation: Evaluation) -> None:
    """1000 params against 250 are 4; the fleet's 750 are 1.33; 4000 MACs against 5000 are 0.8."""
    frame = sizes_frame(evaluation)
    assert frame.loc["a", "params_ratio"] == 4
    assert frame.loc["fleet", "params"] == 750
    assert frame.loc["fleet", "params_ratio"] == pytest.approx(4 / 3)
    assert frame.loc["fleet", "macs_ratio"] == pytest.approx(0.8)


def test_accuracies_are_shown_for_each_class_and_all(evaluation: Evaluation) -> None:
    """The change is fused minus whole, in points."""
    frame = classes_frame(evaluation)
    assert frame.loc["cat", "change"] == pytest.approx(-0.1)
    text = printed(evaluation_text(evaluation))
    assert "-10.0 points" in text
    assert "25%, 4.0x less" in text
    assert "125%, 1.2x more" in text


def test_images_for_calibration_are_counted_beside_those_that_were_measured(evaluation: Evaluation) -> None:
    """Twenty images were measured and 4,000 left to calibration; an older file, or a validation part, left none."""
    text = printed(evaluation_text(evaluation.replace(num_calibration_images=4000)))
    assert "Accuracy on the 20 test images" in text
    assert "\nThe other 4,000 images of the test part calibrate predictions.\n" in text
    assert evaluation.num_calibration_images == 0
    assert "calibrate" not in printed(evaluation_text(evaluation))


def test_the_class_that_loses_most_with_a_device_is_shown(evaluation: Evaluation) -> None:
    """Without a, cats fall from 90 to 10 %, a ninth; without b, dogs from 90 to 80 %."""
    lines = printed(evaluation_text(evaluation)).splitlines()
    rows = [
        line.replace("\u2502", " ").split() for line in lines if ("points" in line and "11%" in line) or "89%" in line
    ]
    assert rows == [
        ["a", "50.0%", "-40.0", "points", "cat", "11%", "of", "90.0%"],
        ["b", "85.0%", "-5.0", "points", "dog", "89%", "of", "90.0%"],
    ]


def test_a_device_called_fleet_and_a_class_called_all_keep_their_rows(evaluation: Evaluation) -> None:
    """Totals are appended, not written over a row of the same name."""
    fields = evaluation.model_dump()
    fields["devices"] = {"fleet": {"params": 250, "macs": 1000}}
    fields["whole_by_class"] = fields["fused_by_class"] = {"all": 0.5}
    renamed = Evaluation.model_validate(fields)
    assert list(sizes_frame(renamed).index) == ["fleet", "fleet"]
    assert list(classes_frame(renamed)["whole"]) == [0.5, 0.95]


def test_a_fleet_name_is_not_markup(solved: Solved) -> None:
    """A closing tag in the fleet's name neither crashes nor disappears."""
    plan, profile, fleet = solved
    renamed = Fleet.model_validate(fleet.model_dump() | {"name": "[/foo] [red]x"})
    assert "[/foo] [red]x" in printed(plan_text(plan, profile, renamed))


def test_hostile_names_are_shown_and_not_interpreted() -> None:
    """Markup in names stays text; long names fold within the width."""
    profile = load_profile("digits-vit")
    names = ["[red]a[/red]", "<script>alert(1)</script>", "x" * 200]
    devices = [{"name": name, "kind": "esp32-s3", "memory_budget": "600KiB"} for name in names]
    link = {"bandwidth_mbps": 10.0, "latency_ms": 1.0}
    fleet = Fleet.model_validate({"aggregator": names[0], "devices": devices, "default_link": link})
    text = printed(plan_text(solve(profile, fleet, Goal(min_retention=0.3)), profile, fleet))
    assert "[red]" in text
    assert "<script" in text
