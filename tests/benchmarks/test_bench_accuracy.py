"""The accuracy benchmark: the numbers computed from its results, and its plans."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from benchmarks.accuracy import ablations, page
from benchmarks.accuracy.collect import paper_shape
from benchmarks.accuracy.execution import Outcome
from benchmarks.accuracy.fleets import fleet_of, with_slower_kinds
from benchmarks.accuracy.plans import Case, accurate_plan, all_cases, baseline_plan, kept_share
from benchmarks.accuracy.results import (
    Cell,
    Costs,
    LatencyAtAccuracy,
    Study,
    WholeModel,
    half_range,
    latency_at_accuracy,
)
from benchmarks.accuracy.runner import interleaved
from benchmarks.accuracy.settings import SMALL
from benchmarks.accuracy.store import code_hash
from planner.errors import InfeasibleError
from planner.library import load_profile
from planner.network.vit import Shape
from planner.rules.cost import device_costs
from planner.schema import Profile


def timed_digits() -> Profile:
    """Return the digits profile with made-up times, and the slower kinds: 5 us and up to 33.4 us for each block."""
    profile = load_profile("digits-vit")
    fixed = {"fixed_us": 5.0, "attention_us": 1.0, "mlp_us": 1.0}
    table = [
        fixed | {"embed_dim": e, "head_us": 4 * e / 64, "channel_us": 0.06 * e / 64}
        for e in (width.embed_dim for width in profile.widths)
    ]
    return with_slower_kinds(Profile.model_validate(profile.model_dump() | {"latency": {"here": table}}))


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        (0.8, LatencyAtAccuracy(15.0, 20.0)),
        (0.9, LatencyAtAccuracy(20.0, 20.0)),
        (0.7, LatencyAtAccuracy(None, 10.0)),
        (0.5, LatencyAtAccuracy(None, 10.0)),
        (0.97, LatencyAtAccuracy(None, 40.0, above=True)),
    ],
)
def test_where_a_curve_reaches_an_accuracy(accuracy: float, expected: LatencyAtAccuracy) -> None:
    """Between 0.7 at 10 us and 0.9 at 20 us, 0.8 is reached at 15 us; outside the points there is a bound."""
    found = latency_at_accuracy([(40.0, 0.95), (10.0, 0.7), (20.0, 0.9)], accuracy)
    assert found is not None
    assert (found.latency_us, found.bound_us, found.above) == (
        pytest.approx(expected.latency_us) if expected.latency_us else None,
        expected.bound_us,
        expected.above,
    )


def test_a_curve_that_falls_is_crossed_at_its_first_rise() -> None:
    """On a curve of 0.6, 0.8, 0.7, 0.9 the accuracy 0.75 is reached between the first two."""
    found = latency_at_accuracy([(1.0, 0.6), (2.0, 0.8), (3.0, 0.7), (4.0, 0.9)], 0.75)
    assert found is not None
    assert found.latency_us == pytest.approx(1.75)
    assert latency_at_accuracy([], 0.5) is None


def test_spread_is_half_the_range() -> None:
    """The spread is half the range; of one value there is none."""
    assert half_range([0.9, 0.8, 0.86]) == pytest.approx(0.05)
    assert half_range([0.9]) is None


def outcome(fused: float) -> Outcome:
    """Return an outcome with this fused accuracy."""
    return Outcome(fused, [fused - 0.1, fused + 0.1], {"here-1": fused - 0.2, "here-2": fused}, {"here-1": 5}, 7.0)


def costs(latency_us: float) -> Costs:
    """Return the costs of a plan with this latency."""
    return Costs(latency_us - 1, latency_us, 2048, (0.25, 0.75), (0.2, 0.5), (1.0,))


def made_up() -> Study:
    """Return results in which ours has 94 % and 95 % at 30 us, and devit's curve reaches them at 52.5 us."""
    whole = WholeModel(0.95, (0.9, 1.0), "60 epochs", "2 blocks", 2_000_000, 5_000_000, 89.0, 90.0, 20.0, 15.0, 3.0)
    third, half, two_thirds = Fraction(1, 3), Fraction(1, 2), Fraction(2, 3)
    cells = {
        Case("ours"): Cell("", costs(30.0), outcome(0.94)),
        Case("ours", seed=1): Cell("", costs(30.0), outcome(0.95)),
        Case("devit", limit=third): Cell("", costs(31.0), outcome(0.9)),
        Case("devit", limit=half): Cell("", costs(45.0), outcome(0.93)),
        Case("devit", limit=two_thirds): Cell("", costs(60.0), outcome(0.96)),
        Case("ed-vit"): Cell(reason="No plan: nothing fits."),
        Case("pruned"): Cell("", costs(29.0), None),
        Case(ablations.NO_TEACHER): Cell("", costs(30.0), outcome(0.925)),
    }
    return Study("digits", "2 times all", whole, cells)


def test_the_page_says_means_targets_and_what_is_missing() -> None:
    """Ours is 0.5 points below the whole, 4.5 above devit, and takes 30 / 52.5 of its time."""
    text = page.page([made_up()])
    assert "94.50% ± 0.50 (2)" in text
    assert "0.50 points below, met by 0.50 points" in text
    assert "4.50 points above, met by 2.50 points" in text
    assert "| devit | 52 | 0.57 |" in text
    assert "0.57 of it, met by 0.13 of the latency" in text
    assert "ed-vit has no plan" in text
    assert "| no teacher: labels alone | 92.50% | -2.00 |" in text
    assert "| equal-4 | pruned | - | - | - | 28 | 29 | 2 |" in text


def test_tables_have_as_many_cells_as_columns() -> None:
    """Every row of a table is as long as its head, with missing values, too."""
    width = 0
    for line in page.page([made_up()]).splitlines():
        count = line.count("|") if line.startswith("|") else 0
        assert width in (0, count) or count == 0, line
        width = count


def test_cases_are_each_there_once_the_most_important_first() -> None:
    """The four rows on equal-4 at a third come first, for three seeds."""
    cases = all_cases()
    assert len(set(cases)) == len(cases)
    assert {(c.fleet, c.limit) for c in cases[:12]} == {("equal-4", Fraction(1, 3))}
    assert [c.seed for c in cases[:12]] == [0] * 4 + [1] * 4 + [2] * 4


def test_subjects_take_turns() -> None:
    """The first case of each subject comes before the second of any."""
    assert interleaved([["a1", "a2", "a3"], ["b1"], ["c1", "c2"]]) == ["a1", "b1", "c1", "a2", "c2", "a3"]


def test_slower_kinds_take_whole_multiples_of_the_time() -> None:
    """`half` takes twice and `quarter` four times the time of `here`, up to rounding."""
    profile = timed_digits()
    devices = {d.name: d for d in device_costs(profile, fleet_of("mixed-5", 1e9, 200_000))}
    times = []
    for name in ("here", "half", "quarter-1"):
        at = devices[name].at(64)
        assert at is not None
        times.append(at.time.compute_us([4] * 4, [256] * 4))
    assert 2 * times[0] - 2 <= times[1] <= 2 * times[0]
    assert 4 * times[0] - 4 <= times[2] <= 4 * times[0]
    assert devices["quarter-3"].memory_budget_bytes - devices["quarter-3"].runtime_overhead_bytes == 480_000


def test_a_baseline_narrows_the_embed_dim_evenly() -> None:
    """At a third of the time it is narrower than the whole, and no structure of a device is empty."""
    profile = timed_digits()
    fleet = fleet_of("equal-4", 1e10, 200_000)
    plan = baseline_plan(profile, fleet, "greedy", 50, 0)
    assert {a.embed_dim for a in plan.assignments} < {48, 32, 24, 16}
    assert min(kept_share(profile, a) for a in plan.assignments) > 0
    assert plan.latency_us <= 50
    with pytest.raises(InfeasibleError, match="No plan"):
        baseline_plan(profile, fleet, "greedy", 20, 0)


def test_ours_fills_each_device_up_to_the_limit() -> None:
    """Every class is served in time, with less than the 5 us of one head to spare."""
    profile = timed_digits()
    plan = accurate_plan(profile, fleet_of("equal-2", 1e10, 200_000), 60, SMALL)
    assert {name for a in plan.assignments for name in a.classes} == set(profile.classes)
    assert 55 < plan.latency_us <= 60


def test_ours_with_given_class_subsets() -> None:
    """Each device serves its subset alone, in time."""
    profile, fleet = timed_digits(), fleet_of("equal-2", 1e10, 200_000)
    free = accurate_plan(profile, fleet, 60, SMALL)
    first, second = (a.device for a in free.assignments)
    subsets = {first: profile.classes[:3], second: profile.classes[3:]}
    plan = accurate_plan(profile, fleet, 60, SMALL, subsets)
    assert {a.device: a.classes for a in plan.assignments} == subsets
    assert 55 < plan.latency_us <= 60
    assert plan.value > 0.9


def test_two_twelfths_of_a_small_model() -> None:
    """Width 96, 6 heads and 384 channels become 16, 1 and 64; of the digits' 64, 4 and 256, 16, 1 and 40 remain."""
    fashion = Shape(28, 7, 1, 10, 96, 16, (6,) * 6, (384,) * 6)
    assert paper_shape(fashion) == replace(fashion, embed_dim=16, num_heads=(1,) * 6, hidden_dim=(64,) * 6)
    digits = Shape(8, 2, 1, 10, 64, 16, (4,) * 4, (256,) * 4)
    assert paper_shape(digits) == replace(digits, embed_dim=16, num_heads=(1,) * 4, hidden_dim=(40,) * 4)


def test_results_outlive_a_changed_comment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of a job depends on its code, not on comments, docstrings or line breaks."""
    monkeypatch.setattr("benchmarks.accuracy.store.ROOT", tmp_path)
    keys = []
    for text in (
        'def f():\n    """One."""\n    return 1\n',
        "def f():  # what\n    return (1)\n",
        "def f():\n    return 2\n",
    ):
        (tmp_path / "code.py").write_text(text)
        keys.append(code_hash.__wrapped__(("*.py",)))
    assert keys[0] == keys[1] != keys[2]
