"""The accuracy benchmark: what is computed from its results, and what its ablations change."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks.accuracy import ablations, page
from benchmarks.accuracy.collect import paper_shape
from benchmarks.accuracy.execution import Outcome
from benchmarks.accuracy.fleets import fleet_of, slower
from benchmarks.accuracy.plans import Case, all_cases, by_yardstick, kept_share, most_retained, with_levels
from benchmarks.accuracy.results import Cell, Costs, Reached, Study, WholeModel, reached, spread
from benchmarks.accuracy.runner import in_order
from benchmarks.accuracy.settings import SMALL
from benchmarks.accuracy.store import code_of
from planner.errors import InfeasibleError
from planner.library import load_profile
from planner.network.distillation_data import Batch
from planner.network.fusion import Fusion
from planner.network.joint_model import JointLoss, JointModel
from planner.network.losses import DistillationLoss, FusionLoss, OwnOrOtherLoss, RelationLoss
from planner.network.vit import Shape, VisionTransformer
from planner.rules.cost import device_costs
from planner.schema import Assignment, FusionCost, Goal, Plan, Profile, SolverRun

ROOT = Path(__file__).parent.parent.parent


def timed_digits() -> Profile:
    """Return the digits profile with made-up times, and the slower kinds: 5 us and up to 33.4 us for each block."""
    profile = load_profile("digits-vit")
    fixed = {"fixed_us": 5.0, "attention_us": 1.0, "mlp_us": 1.0}
    table = [
        fixed | {"embed_dim": e, "head_us": 4 * e / 64, "channel_us": 0.06 * e / 64}
        for e in (width.embed_dim for width in profile.widths)
    ]
    return slower(Profile.model_validate(profile.model_dump() | {"latency": {"here": table}}))


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        (0.8, Reached(15.0, 20.0)),
        (0.9, Reached(20.0, 20.0)),
        (0.7, Reached(None, 10.0)),
        (0.5, Reached(None, 10.0)),
        (0.97, Reached(None, 40.0, above=True)),
    ],
)
def test_where_a_curve_reaches_an_accuracy(accuracy: float, expected: Reached) -> None:
    """Halfway between 0.7 at 10 us and 0.9 at 20 us lies 0.8 at 15 us; what lies outside of all points is a bound."""
    found = reached([(40.0, 0.95), (10.0, 0.7), (20.0, 0.9)], accuracy)
    assert found is not None
    assert (found.latency_us, found.bound_us, found.above) == (
        pytest.approx(expected.latency_us) if expected.latency_us else None,
        expected.bound_us,
        expected.above,
    )


def test_a_curve_that_falls_is_crossed_at_its_first_rise() -> None:
    """Of 0.6, 0.8, 0.7, 0.9 the accuracy 0.75 is reached between the first two."""
    found = reached([(1.0, 0.6), (2.0, 0.8), (3.0, 0.7), (4.0, 0.9)], 0.75)
    assert found is not None
    assert found.latency_us == pytest.approx(1.75)
    assert reached([], 0.5) is None


def test_spread_is_half_the_range() -> None:
    """Of one value there is none."""
    assert spread([0.9, 0.8, 0.86]) == pytest.approx(0.05)
    assert spread([0.9]) is None


def outcome(fused: float) -> Outcome:
    return Outcome(fused, [fused - 0.1, fused + 0.1], {"here-1": fused - 0.2, "here-2": fused}, {"here-1": 5}, 7.0)


def costs(latency_us: float) -> Costs:
    return Costs(latency_us - 1, latency_us, 2048, (0.25, 0.75), (0.2, 0.5), (1.0,))


def made_up() -> Study:
    """Return results in which ours has 94 % and 95 % at 30 us, and devit's curve gets there at 52.5 us."""
    whole = WholeModel(0.95, (0.9, 1.0), "60 epochs", "2 blocks", 2_000_000, 5_000_000, 89.0, 90.0, 20.0, 15.0, 3.0)
    third, half, most = Fraction(1, 3), Fraction(1, 2), Fraction(2, 3)
    cells = {
        Case("ours"): Cell("", costs(30.0), outcome(0.94)),
        Case("ours", seed=1): Cell("", costs(30.0), outcome(0.95)),
        Case("devit", limit=third): Cell("", costs(31.0), outcome(0.9)),
        Case("devit", limit=half): Cell("", costs(45.0), outcome(0.93)),
        Case("devit", limit=most): Cell("", costs(60.0), outcome(0.96)),
        Case("ed-vit"): Cell(reason="No plan: nothing fits."),
        Case("pruned"): Cell("", costs(29.0), None),
        Case(ablations.NO_TEACHER): Cell("", costs(30.0), outcome(0.925)),
    }
    return Study("digits", "2 times all", whole, cells)


def test_the_page_says_means_targets_and_what_is_missing() -> None:
    """Ours is 0.5 points below the whole, 4.5 above devit, and takes 30 / 52.5 of its time; the rest is a dash."""
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
    """Every row of a table is as long as its head, whatever is missing."""
    width = 0
    for line in page.page([made_up()]).splitlines():
        count = line.count("|") if line.startswith("|") else 0
        assert width in (0, count) or count == 0, line
        width = count


def test_cases_are_each_there_once_the_most_important_first() -> None:
    """First come the four rows on equal-4 at a third, for three seeds."""
    cases = all_cases()
    assert len(set(cases)) == len(cases)
    assert {(c.fleet, c.limit) for c in cases[:12]} == {("equal-4", Fraction(1, 3))}
    assert [c.seed for c in cases[:12]] == [0] * 4 + [1] * 4 + [2] * 4


def test_subjects_take_turns() -> None:
    """The first of each subject comes before the second of any."""
    assert in_order([["a1", "a2", "a3"], ["b1"], ["c1", "c2"]]) == ["a1", "b1", "c1", "a2", "c2", "a3"]


def test_slower_kinds_take_whole_multiples_of_the_time() -> None:
    """`half` takes twice and `quarter` four times what `here` takes, to the microsecond that is rounded up."""
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


def test_a_yardstick_narrows_the_embed_dim_as_evenly_as_it_can() -> None:
    """At a third of the time it is narrower than the whole, and no structure of any device is empty."""
    profile = timed_digits()
    fleet = fleet_of("equal-4", 1e10, 200_000)
    plan = by_yardstick(profile, fleet, "greedy", 50, 0)
    assert {a.embed_dim for a in plan.assignments} < {48, 32, 24, 16}
    assert min(kept_share(profile, a) for a in plan.assignments) > 0
    assert plan.latency_us <= 50
    with pytest.raises(InfeasibleError, match="No plan"):
        by_yardstick(profile, fleet, "greedy", 20, 0)


def test_floors_rise_with_the_level_and_the_number_of_classes() -> None:
    """Level 3 of 4 asks for 0.75 of a class that is alone, and for more of several, at most all."""
    raised = with_levels(load_profile("digits-vit"), 4)
    found = [row.by_count for row in raised.recovery]
    assert [row[0] for row in found] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert all(list(row) == sorted(row) and row[-1] <= 1 for row in found)
    assert found[1][4] > found[1][1] > found[1][0]


def test_alike_importance_is_the_mean_over_classes() -> None:
    """Each class has the mean of all, head by head, which still sums to one."""
    profile = load_profile("digits-vit")
    alike = ablations.classes_alike(profile)
    expected = np.mean(profile.importance.heads, axis=0)
    for heads in alike.importance.heads:
        np.testing.assert_allclose(heads, expected, rtol=1e-12)


def plan_of(retention: dict[str, dict[str, float]]) -> Plan:
    """Return a plan in which devices serve classes with these retentions."""
    assignments = [
        Assignment(
            device=device,
            classes=tuple(kept),
            embed_dim=8,
            kept_heads=((0,),),
            kept_channel_groups=((0,),),
            send_us=0,
            compute_us=1,
            return_us=0,
            memory_bytes=1,
            retention=kept,
            estimated=False,
        )
        for device, kept in retention.items()
    ]
    return Plan(
        status="feasible",
        latency_us=1,
        bound_us=1,
        gap=0.0,
        goal=Goal(),
        profile_sha256="p",
        fleet_sha256="f",
        solver=SolverRun(version="v", seconds=0.0, seed=0),
        assignments=tuple(assignments),
        fusion=FusionCost(device="a", latency_us=0),
    )


def test_each_class_stays_where_its_retention_is_highest() -> None:
    """`far`, best at nothing, takes of `near`'s two classes the one that loses 0.1 instead of 0.3 by it."""
    plan = plan_of({"near": {"0": 0.9, "1": 0.8}, "far": {"0": 0.6, "1": 0.7}, "third": {"0": 0.1, "2": 0.5}})
    alone = ablations.on_one_device(plan)
    assert {a.device: a.classes for a in alone.assignments} == {"near": ("0",), "far": ("1",), "third": ("2",)}
    assert dict(alone.assignments[1].retention) == {"1": 0.7}


def test_random_subsets_keep_sizes_and_copies() -> None:
    """Two classes for one device and two for the other, of which one class is on both, whichever it is."""
    plan = plan_of({"near": {"0": 0.9, "1": 0.8}, "far": {"1": 0.5, "2": 0.6}})
    drawn = [ablations.random_subsets(plan, seed) for seed in range(8)]
    for subsets in drawn:
        assert {device: len(set(classes)) for device, classes in subsets.items()} == {"near": 2, "far": 2}
        assert {name for classes in subsets.values() for name in classes} == {"0", "1", "2"}
    assert len({str(subsets) for subsets in drawn}) > 1


def test_ours_fills_each_device_up_to_the_limit() -> None:
    """Every class is served, in time, and less than the 5 us of one head are left of the limit."""
    profile = timed_digits()
    plan = most_retained(profile, fleet_of("equal-2", 1e10, 200_000), 60, SMALL)
    assert {name for a in plan.assignments for name in a.classes} == set(profile.classes)
    assert 55 < plan.latency_us <= 60


def batch_of(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images, answers = torch.randn(6, 1, 4, 4, generator=generator), torch.randn(6, 4, generator=generator)
    return Batch(images, torch.tensor([0, 1, 2, 3, 0, 2]), answers, torch.zeros(6, 8))


SHAPE = Shape(4, 2, 1, 4, 8, 4, (1,), (8,))


def model_of(seed: int) -> VisionTransformer:
    torch.manual_seed(seed)
    return VisionTransformer(SHAPE).eval()


def test_own_alone_is_a_softmax_over_own_classes_of_own_images() -> None:
    """By hand: images 0, 2, 3 and 5 of classes 0, 2 are looked at, and logits 0 and 2 alone, at temperature 2."""
    batch, model = batch_of(0), model_of(0)
    value = ablations.without_other(DistillationLoss((0, 2), 4))(model, batch, torch.Generator())
    logits = model(batch.inputs).detach().numpy()[[0, 2, 4, 5]][:, [0, 2]].astype(float)
    taught = batch.answers.numpy()[[0, 2, 4, 5]][:, [0, 2]].astype(float)
    labels = [0, 1, 0, 1]

    def softmax(x: np.ndarray) -> np.ndarray:
        return np.exp(x) / np.exp(x).sum(1, keepdims=True)

    hard = -np.log(softmax(logits)[range(4), labels]).mean()
    p, q = softmax(taught / 2), softmax(logits / 2)
    soft = 4 * (p * np.log(p / q)).sum(1).mean()
    assert value.item() == pytest.approx(0.5 * hard + 0.5 * soft, rel=1e-5)


def test_own_alone_is_zero_without_own_images() -> None:
    """A batch without any image of the own classes teaches nothing, and the loss still has a gradient."""
    logits = torch.randn(2, 4, requires_grad=True)
    batch = Batch(torch.zeros(2), torch.tensor([0, 1]), torch.randn(2, 4), torch.zeros(2, 8))
    value = ablations.own_alone_loss(logits, batch, torch.tensor([False, False, True, True]))
    value.backward()
    assert value.item() == 0


def test_without_teacher_its_answers_do_not_matter() -> None:
    """Apart, fused and together: another teacher's answers leave the loss as it is, to the bit."""
    batch = batch_of(0)
    other = batch._replace(answers=-batch.answers)
    model, fusion = model_of(0), Fusion((8, 8), 4, 4).eval()
    joint = JointModel([model, model_of(1)], fusion).eval()
    features = batch._replace(inputs=torch.randn(6, 16))
    for objective, module, given in (
        (DistillationLoss((0, 2), 4), model, batch),
        (FusionLoss(), fusion, features),
        (JointLoss([(0, 2), (1, 3)], 4, 0.3), joint, batch),
    ):
        changed = ablations.without_teacher(objective)
        values = [
            changed(module, b, torch.Generator().manual_seed(0)) for b in (given, given._replace(answers=other.answers))
        ]
        assert torch.equal(*values)
        assert not torch.equal(values[0], objective(module, given, torch.Generator().manual_seed(0)))


def test_together_without_teacher_is_labels_fused_and_own() -> None:
    """The fused cross-entropy, and 0.3 times the mean of the sub-models' own-or-other losses."""
    batch, models, fusion = batch_of(0), [model_of(0), model_of(1)], Fusion((8, 8), 4, 4)
    own = [(0, 2), (1, 3)]
    joint = JointModel(models, fusion).eval()
    value = ablations.without_teacher(JointLoss(own, 4, 0.3))(joint, batch, torch.Generator())
    fused = fusion(torch.cat([m.features(batch.inputs) for m in models], 1))
    apart = [OwnOrOtherLoss(o, 4)(m, batch, torch.Generator()) for o, m in zip(own, models, strict=True)]
    expected = F.cross_entropy(fused, batch.labels) + 0.3 * (apart[0] + apart[1]) / 2
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_an_objective_that_ablations_do_not_know_is_refused() -> None:
    """A recipe that was changed must not pass for its own ablation."""
    for change in (ablations.without_teacher, ablations.without_other):
        with pytest.raises(TypeError, match="no other form of objective Relations"):
            change(RelationLoss((0,), model_of(0)))


def test_two_twelfths_of_a_small_model() -> None:
    """Of width 96, 6 heads of 16 and 384 channels: 16, 1 and 64; of digits' 64, 4 and 256: 16, 1 and 40."""
    fashion = Shape(28, 7, 1, 10, 96, 16, (6,) * 6, (384,) * 6)
    assert paper_shape(fashion) == replace(fashion, embed_dim=16, num_heads=(1,) * 6, hidden_dim=(64,) * 6)
    digits = Shape(8, 2, 1, 10, 64, 16, (4,) * 4, (256,) * 4)
    assert paper_shape(digits) == replace(digits, embed_dim=16, num_heads=(1,) * 4, hidden_dim=(40,) * 4)


def test_results_outlive_a_changed_comment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a job is known by changes with its code, not with comments, docstrings or line breaks."""
    monkeypatch.setattr("benchmarks.accuracy.store.ROOT", tmp_path)
    keys = []
    for text in (
        'def f():\n    """One."""\n    return 1\n',
        "def f():  # what\n    return (1)\n",
        "def f():\n    return 2\n",
    ):
        (tmp_path / "code.py").write_text(text)
        keys.append(code_of(["*.py"]))
    assert keys[0] == keys[1] != keys[2]
