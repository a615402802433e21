"""Profile files: every mistake is named with its place."""

import json
from collections.abc import Callable

import pytest

from planner.schema import Profile, read_document
from tests.helpers.common import Json
from tests.helpers.complaints import PROFILE, profile_complaint
from tests.helpers.pencil import ACCURACY_MODEL, profile_data


def with_model(**changes: object) -> Callable[[Json], object]:
    """Return a change that gives a profile the pencil's accuracy model, with some keys replaced."""
    return lambda data: data.update(accuracy_model=ACCURACY_MODEL | changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.update(classes=["a", "a"]), "classes: names must differ, 'a' is given twice."),
        # 0.3 becomes 0.4: the importance of class a sums to 1.1.
        (
            lambda p: p["importance"]["heads"][0].__setitem__(0, [0.4, 0.1]),
            "importance of class 'a' must sum to 1, got 1.1.",
        ),
        (
            lambda p: p["importance"]["heads"][1].__setitem__(0, [-0.1, 0.2]),
            "importance.heads[1][0]: must be >= 0, got -0.1.",
        ),
        (
            lambda p: p["importance"]["heads"].pop(),
            "importance.heads: must have one entry for each of 2 classes, got 1.",
        ),
        (
            lambda p: p["importance"]["channel_groups"][1].pop(),
            "importance.channel_groups[1]: must have one entry for each of 2 blocks, got 1.",
        ),
        (
            lambda p: p["importance"]["heads"][0][1].append(0.0),
            "importance.heads[0][1]: must have 2 numbers, got 3.",
        ),
        (
            lambda p: p["importance"]["channel_groups"][0][1].pop(),
            "importance.channel_groups[0][1]: must have 2 numbers, got 1.",
        ),
        (lambda p: p["channel_groups"].pop(), "channel_groups: must have one entry for each of 2 blocks, got 1."),
        (
            lambda p: p["channel_groups"].__setitem__(0, [[0, 1], []]),
            "channel_groups[0]: a group must hold a channel, got an empty one.",
        ),
        (
            lambda p: p["channel_groups"].__setitem__(0, [[0, 1], [1]]),
            "channel_groups[0]: a channel must be in one group, got one in two.",
        ),
        (
            lambda p: p["channel_groups"].__setitem__(1, [[0], [1, 3]]),
            "channel_groups[1]: channels must be 0 to 2, got 0 to 3.",
        ),
        (lambda p: p["widths"][1].update(embed_dim=8), "widths: entries must differ, got [8, 8]."),
        (lambda p: p["widths"][1].update(head_macs=[1]), "widths[1].head_macs: must have 2 numbers, got 1."),
        (lambda p: p["widths"][0].update(channel_params=[1, -2]), "widths[0].channel_params[1]: must be >= 0, got -2."),
        (
            lambda p: p["widths"][0].update(embed_retention=[1.0]),
            "widths[0].embed_retention: must have 2 numbers, got 1.",
        ),
        (
            lambda p: p["widths"][1].update(embed_retention=[0.9, 1.5]),
            "widths[1].embed_retention: must be at most 1, got 1.5.",
        ),
        (lambda p: p["widths"][0].update(fixed_macs=-1), "widths[0]: fixed_macs must be >= 0, got -1."),
        (
            lambda p: p["latency"]["board"].append(p["latency"]["board"][0]),
            "latency['board']: rows must differ in embed_dim, precision or engine, got "
            "[(8, 'float32', 'onnxruntime'), (8, 'float32', 'onnxruntime')].",
        ),
        (
            with_model(class_offset=[0.2]),
            "accuracy_model.class_offset: must have one entry for each of 2 classes, got 1.",
        ),
        (with_model(class_share=[1.0]), "accuracy_model.class_share: must have 2 numbers, got 1."),
        (with_model(class_share=[1.5, -0.5]), "accuracy_model.class_share: must be >= 0, got -0.5."),
        (with_model(class_share=[0.5, 0.6]), "accuracy_model.class_share: must sum to 1, got 1.1."),
        (with_model(steepness=0), "accuracy_model: steepness must be > 0, got 0."),
        (with_model(whole_error=1), "accuracy_model: whole_error must be < 1, got 1."),
        (with_model(scores=[]), "accuracy_model: scores must have at least 1 entry, got 0."),
        (lambda p: p.update(num_tokens="17"), 'num_tokens must be a valid integer, got "17".'),
    ],
)
def test_wrong_profiles(change: Callable[[Json], object], message: str) -> None:
    """The message names the place in the profile, the rule and the value."""
    assert profile_complaint(change) == message


def test_a_profile_without_classes() -> None:
    """A profile must have at least one class."""
    assert profile_complaint(lambda data: data.update(classes=[])).startswith("classes must have at least 1 ")


def test_importance_may_be_off_by_rounding() -> None:
    """Importance that sums to 1.0005 is accepted."""
    data = profile_data()
    data["importance"]["heads"][0][0][0] += 0.0005
    PROFILE.write_text(json.dumps(data))
    assert read_document(PROFILE, Profile).importance.heads[0][0][0] == 0.3005
