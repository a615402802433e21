"""A profile as tables and as a page: the pencil profile, whose numbers can be calculated by hand."""

import io
from typing import Any

import pytest
from rich.console import Console

from planner.library import load_profile
from planner.report import profile_frames
from planner.report.profile_text import prediction_lines, profile_text
from planner.schema import Profile
from tests.helpers.pencil import ACCURACY_MODEL, profile

# Errors of predictions relative to the predicted loss and half a point.
SCORES = [-0.4, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.6]


def page(shown: Profile, width: int = 80) -> str:
    """Return the text on a terminal."""
    file = io.StringIO()
    Console(file=file, width=width).print(profile_text(shown))
    return file.getvalue()


def test_where_the_costs_are() -> None:
    """Fixed 1000; 2 heads of 100, 3 channels of 10; 2 heads of 200, 3 channels of 20: 1690 MACs together."""
    frame = profile_frames.costs_frame(profile())
    assert frame["macs"].tolist() == [1000, 200, 30, 400, 60]
    assert frame["weight_bytes"].tolist() == [4 * n for n in (50, 14, 9, 22, 15)]
    assert frame["macs_share"].sum() == pytest.approx(1)
    assert frame["macs_share"].iloc[0] == pytest.approx(1000 / 1690)


def test_what_a_width_costs() -> None:
    """At width 4: 500 + 2 (50 + 100) + 3 (5 + 10) MACs, activations 10 + max(4 x 2, 2 x 3)."""
    frame = profile_frames.widths_frame(profile())
    assert frame.loc[4, "macs"] == 500 + 300 + 45
    assert frame.loc[4, "activation_bytes"] == 18
    assert frame["least_retention"][4] == 0.5
    assert frame["mean_retention"][4] == pytest.approx(0.7)


def test_importance_of_each_block() -> None:
    """Class a has 0.4 in the heads of block 0; each class sums to 1."""
    frame = profile_frames.importance_frame(profile())
    assert frame[0, "heads"]["a"] == pytest.approx(0.4)
    assert frame.sum(axis=1).tolist() == pytest.approx([1, 1])


def test_importance_of_each_head() -> None:
    """Head 0 of block 0 has 0.3 of class a and 0.05 of b."""
    row: Any = profile_frames.heads_frame(profile()).loc[(0, 0)]
    assert (row["mean_share"], row["neediest"], row["neediest_share"]) == (pytest.approx(0.175), "a", 0.3)


def test_what_a_tenth_less_costs() -> None:
    """Block 1's head 0 is worth least for its MACs (200 for 0.1): without it a and b keep 0.9."""
    frame: Any = profile_frames.pruning_frame(profile())
    assert frame.index.tolist() == [0.9, 0.75, 0.5, 0.25]
    assert frame.loc[0.9, "macs"] == 1690 - 200
    assert frame.loc[0.9, "least_retention"] == pytest.approx(0.9)
    assert frame["accuracy"].isna().all()


def test_less_never_retains_more() -> None:
    """On the shipped profile, fewer MACs never retain more or predict a higher accuracy."""
    frame: Any = profile_frames.pruning_frame(load_profile("digits-vit"))
    for column in ("macs", "weight_bytes", "least_retention", "mean_retention"):
        assert frame[column].is_monotonic_decreasing, column


def test_a_row_for_each_latency_row() -> None:
    """The pencil profile's one row, with its kind."""
    (row,) = profile_frames.latency_frame(profile()).to_dict("records")
    assert (row["kind"], row["embed_dim"], row["precision"], row["fixed_us"]) == ("board", 8, "float32", 10.5)


def test_predictions_are_worth_what_trial_plans_say() -> None:
    """Of nine scores the lowest is -0.4 and the highest 0.6: 2 points and 2.5 times these are 1 and 3.5."""
    shown = profile(accuracy_model=ACCURACY_MODEL | {"scores": SCORES})
    lines = prediction_lines(shown)
    assert lines == [
        "Predictions hold after 10 epochs of retraining; 9 trial plans, unsplit 97.0%.",
        "Of plans predicted to lose 2 points, four in five lose between 1.0 and 3.5.",
    ]
    page_lines = page(shown).splitlines()
    assert set(lines) < set(page_lines)
    # Where predictions are so poor that a gain is possible, no loss is below zero.
    poor = ACCURACY_MODEL | {"scores": [-1.5, *SCORES[1:]], "epochs": 0}
    without_training, interval = prediction_lines(profile(accuracy_model=poor))
    assert without_training.startswith("Predictions hold without retraining; ")
    assert interval.endswith("between 0.0 and 3.5.")


def test_few_trial_plans_have_no_interval() -> None:
    """Of eight errors none is beyond nine in ten, so no interval is stated; without trial plans no accuracy is."""
    few = prediction_lines(profile(accuracy_model=ACCURACY_MODEL | {"scores": SCORES[:8]}))
    assert few[1] == "So few do not say how far off predictions are: 9 trial plans would."
    none = "No trial plan was executed: goals are a min_retention, not an accuracy drop."
    assert prediction_lines(profile()) == [none]
    assert none in page(profile())


@pytest.mark.parametrize("name", ["pencil", "digits"])
def test_the_page_fits_eighty_columns(name: str) -> None:
    """No line is cut off or too long, and the headline names the model."""
    shown = profile(accuracy_model=ACCURACY_MODEL) if name == "pencil" else load_profile("digits-vit")
    text = page(shown)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert text.startswith(f"{shown.model}: {len(shown.classes)} classes")


def test_many_classes_are_shown_by_those_unlike_the_mean() -> None:
    """Of thirty classes that are all alike but one, the page shows twelve, the one among them."""
    data = profile().model_dump()
    alike = {key: [data["importance"][key][0]] * 29 + [data["importance"][key][1]] for key in data["importance"]}
    widths = [width | {"embed_retention": [1.0] * 30} for width in data["widths"]]
    names = [f"class {i}" for i in range(30)]
    many = profile(classes=names, importance=alike, widths=widths)
    text = page(many)
    assert "the 12 of 30 classes" in " ".join(text.split())
    assert "class 29" in text
