"""Trial plans: the range they span, and the accuracy model and floors fitted to them."""

import itertools
import math

import numpy as np
import pytest
import torch

from planner.library import load_profile
from planner.network import data
from planner.network.checkpoint import load_model
from planner.network.data import Jitter, Samples
from planner.network.distillation_data import make_distillation_data
from planner.network.training import Epoch
from planner.profiler import accuracy_model, trial_plans
from planner.profiler.accuracy_model import Evidence
from planner.profiler.trial_plans import TrialDevice, TrialPlan
from planner.rules.accuracy import class_errors

WIDTHS = {64: 1.0, 48: 0.8, 32: 0.6}
HELD = 2000


@pytest.mark.parametrize("num_classes", [2, 3, 10, 1000])
def test_trial_plans_are_plans(num_classes: int) -> None:
    """In every trial plan each class is on one device, and no device is without a class."""
    trials = trial_plans.trial_designs(num_classes, WIDTHS, seed=0)
    assert len(trials) == trial_plans.NUM_TRIALS
    for devices in trials:
        assert sorted(c for device in devices for c in device.classes) == list(range(num_classes))
        assert all(device.classes for device in devices)
        assert all(0.1 < device.share <= 1 for device in devices)


def test_trial_plans_span_what_plans_differ_in() -> None:
    """One device and five, every width, small and large shares, equal and unequal devices occur."""
    trials = trial_plans.trial_designs(10, WIDTHS, seed=0)
    assert {len(devices) for devices in trials} == {1, 2, 3, 5}
    assert {device.embed_dim for devices in trials for device in devices} == set(WIDTHS)
    shares = [device.share for devices in trials for device in devices]
    assert min(shares) < 0.3 < 0.95 < max(shares)
    unequal = [devices for devices in trials if len({device.share for device in devices}) > 1]
    assert 3 <= len(unequal) <= trial_plans.NUM_TRIALS - 3


def test_trial_plans_cost_no_more_than_ten_plans() -> None:
    """A plan of five devices trains five sub-models; all trial plans together train less than fifty."""
    assert sum(map(len, trial_plans.trial_designs(10, WIDTHS, seed=0))) <= 10 * 5


def test_epochs_are_counted_as_they_are_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real trial plan, too short to end early, trains as many epochs as were counted."""
    monkeypatch.setattr(trial_plans, "DEFAULT_EPOCHS", 2)
    profile = load_profile("digits-vit")
    card, whole = load_model("digits-vit")
    learned, others = data.fold(data.load(card, "train", max_per_class=9), 0, 3, seed=0)
    lessons = make_distillation_data(whole, learned, Jitter(0.0, 0.0), seed=0)
    hold_out = trial_plans.HoldOut(others, torch.zeros(1, len(others), 4))
    setting = trial_plans.TrialSetting(profile, whole, lessons, lessons.take(torch.arange(5)), hold_out, seed=0)
    devices = trial_plans.trial_designs(10, WIDTHS, seed=0)[3]
    trained: list[Epoch] = []
    trial = trial_plans.run_trial(setting, devices, trained.append)
    assert len(trained) == trial_plans.num_epochs([devices])
    assert trial.images == (3,) * 10


def test_errors_are_counted_class_by_class_over_all_copies() -> None:
    """Of an image and its mirrored copy, one right answer is an error of a half; a class without images has none."""
    images = torch.tensor([[0.0, 1.0], [0.0, 1.0], [2.0, 0.0]]).view(3, 1, 1, 2).expand(3, 1, 2, 2).contiguous()
    moves = torch.zeros(2, 3, 4)
    moves[1, :, 3] = 1
    hold_out = trial_plans.HoldOut(Samples(images, torch.tensor([1, 0, 3])), moves)

    def answer(images: torch.Tensor) -> torch.Tensor:
        # Brighter on the right: class 1; on the left: class 3.
        right = images[:, 0, 0, 1] > images[:, 0, 0, 0]
        return torch.nn.functional.one_hot(torch.where(right, 1, 3), 4).float()

    assert trial_plans.held_out_errors(answer, hold_out, 4) == (1.0, 0.5, 0.0, 0.5)


def test_the_cheapest_cut_keeps_its_share() -> None:
    """Every own class keeps at least the share, and the stated retention of every class is exact."""
    profile = load_profile("digits-vit")
    for share in (0.2, 0.5, 1.0):
        heads, channels, kept = trial_plans.cheapest_cut(profile, [3, 7], share)
        assert kept[[3, 7]].min() >= share - 1e-6
        assert all(len(set(block)) == len(block) for block in (*heads, *channels))
        for c in (0, 7):
            of_heads = sum(profile.importance.heads[c][l][h] for l, block in enumerate(heads) for h in block)
            of_groups = sum(
                profile.importance.channel_groups[c][l][g]
                for l, groups in enumerate(profile.channel_groups)
                for g, group in enumerate(groups)
                if set(group) <= set(channels[l])
            )
            assert kept[c] == pytest.approx(of_heads + of_groups)
    assert [len(block) for block in channels] == [profile.hidden_dim] * profile.depth


def test_the_cheapest_cut_keeps_the_anchor_head() -> None:
    """Even at no share at all, where it is all that is kept."""
    profile = load_profile("digits-vit")
    totals = np.array(profile.importance.heads)[:, -1].sum(axis=0)
    for share in (0.0, 0.2):
        heads, channels, kept = trial_plans.cheapest_cut(profile, [3, 7], share)
        assert int(totals.argmax()) in heads[-1]
        if not share:
            assert [heads, channels] == [[[], [], [], [int(totals.argmax())]], [[]] * 4]
            assert kept.tolist() == [of_class[-1][int(totals.argmax())] for of_class in profile.importance.heads]


# What made the trial plans below: ln e = -4 + o_c + 0.4 ln n - 2 ln best - 0.3 ln(all / best), a width retains rho^0.4.
RHO = {8: np.ones(3), 4: np.array([0.5, 0.6, 0.4])}
OFFSETS = (0.0, 0.3, -0.3)


def true_errors(devices: list[TrialDevice], units: list[list[float]]) -> list[float]:
    """Return the errors that the model above gives, written out class by class."""
    errors = []
    for c in range(3):
        kept = [units[d][c] * RHO[device.embed_dim][c] ** 0.4 for d, device in enumerate(devices)]
        n = max((k, len(device.classes)) for k, device in zip(kept, devices, strict=True) if c in device.classes)[1]
        best = max(kept)
        errors.append(math.exp(-4 + OFFSETS[c]) * n**0.4 * best**-2 * (sum(kept) / best) ** -0.3)
    return errors


def made_trials(seed: int = 0, noise: float = 0.0) -> list[TrialPlan]:
    """Return trial plans of one to three devices whose errors are those of the model above, times a lognormal."""
    rng = np.random.default_rng(seed)
    trials = []
    for i in range(24):
        order = rng.permutation(3).tolist()
        parts = ([order], [order[:1], order[1:]], [[c] for c in order])[i % 3]
        units = [rng.uniform(0.2, 0.9, 3).tolist() for _ in parts]
        devices = [
            TrialDevice(classes=tuple(sorted(part)), embed_dim=(8, 4)[(i // 3 + d) % 2], share=0.5)
            for d, part in enumerate(parts)
        ]
        errors = [e * math.exp(noise * rng.normal()) for e in true_errors(devices, units)]
        retention = tuple(map(tuple, units))
        trials.append(
            TrialPlan(devices=tuple(devices), unit_retention=retention, images=(HELD,) * 3, errors=tuple(errors))
        )
    return trials


def evidence(trials: list[TrialPlan], whole_error: float = 0.01) -> Evidence:
    """Return trial plans with all data that the model is fitted to."""
    return Evidence(trials, RHO, whole_error)


def test_the_model_that_made_the_trial_plans_is_found() -> None:
    """From exact errors, the weights, offsets and the price of a narrow width are found again."""
    found = accuracy_model.calibrate_accuracy(evidence(made_trials()))
    model = found.fused_accuracy
    got = (model.intercept, model.log_num_classes, model.log_best_retention, model.log_other_retention)
    assert got == pytest.approx((-4, 0.4, 2, 0.3), abs=0.1)
    assert model.class_offset == pytest.approx(OFFSETS, abs=0.06)
    assert found.embed_retention[4] == pytest.approx((RHO[4] ** 0.4).tolist(), abs=1e-6)
    assert found.embed_retention[8] == [1.0] * 3
    assert model.log_error < 0.05


def test_the_error_of_the_model_is_that_of_new_trials() -> None:
    """Trial plans that scatter by 30 % are predicted about that well, no better: errors are not overfitted."""
    found = accuracy_model.calibrate_accuracy(evidence(made_trials(noise=0.3)))
    fresh = made_trials(seed=1, noise=0.3)
    logs = []
    for trial in fresh:
        retained = accuracy_model.trial_retention(trial, RHO, 0.4)
        predicted = class_errors(found.fused_accuracy, retained).sum()
        logs.append(math.log(predicted / sum(trial.errors)))
    assert found.fused_accuracy.log_error == pytest.approx(np.sqrt(np.mean(np.square(logs))), rel=0.5)
    assert 0.1 < found.fused_accuracy.log_error < 0.4


def errors_at(floors: list[float], num_classes: int, others: float) -> float:
    """Return the mean error by the model above on one of 3 / n devices, when the others retain `others` of theirs."""
    helped = float((1 + others * (3 / num_classes - 1)) ** -0.3)
    errors: list[float] = [math.exp(-4 + o) * num_classes**0.4 / r**2 for o, r in zip(OFFSETS, floors, strict=True)]
    return helped * sum(errors) / 3


def others_of(trials: list[TrialPlan]) -> float:
    """Return the mean retention of a device relative to the best one, over trial plans and classes."""
    ratios: list[float] = []
    for trial in (p for p in trials if len(p.devices) > 1):
        of_classes: list[float] = []
        for c in range(3):
            pairs = zip(trial.devices, trial.unit_retention, strict=True)
            kept = [units[c] * RHO[device.embed_dim][c] ** 0.4 for device, units in pairs]
            of_classes.append((sum(kept) / max(kept) - 1) / (len(kept) - 1))
        ratios.append(sum(of_classes) / 3)
    return sum(ratios) / len(ratios)


@pytest.mark.parametrize("num_classes", [1, 2, 3])
def test_at_the_floors_the_mean_error_is_what_is_allowed(num_classes: int) -> None:
    """At its floors, an equal split has a mean error of sqrt((0.01 + 0.05)^2 - 0.01^2)."""
    trials = made_trials()
    row = {r.max_accuracy_drop: r for r in accuracy_model.calibrate_accuracy(evidence(trials)).recovery}[0.05]
    floors = [row.by_count[num_classes - 1] * need for need in row.class_need]
    allowed = math.sqrt(0.06**2 - 0.01**2)
    assert errors_at(floors, num_classes, others_of(trials)) == pytest.approx(allowed, rel=0.05)


def test_no_other_floors_of_the_same_sum_err_less() -> None:
    """Moving retention from one class to another never lowers the mean error."""
    row = {r.max_accuracy_drop: r for r in accuracy_model.calibrate_accuracy(evidence(made_trials())).recovery}[0.05]
    floors = [row.by_count[1] * need for need in row.class_need]
    best = errors_at(floors, 2, 0.5)
    for giver, taker in itertools.permutations(range(3), 2):
        moved = [r - 0.05 * (c == giver) + 0.05 * (c == taker) for c, r in enumerate(floors)]
        assert errors_at(moved, 2, 0.5) > best


def test_a_drop_that_nothing_reaches_needs_all() -> None:
    """When even the unpruned model is predicted to lose more, the floor is 1."""
    hopeless = [trial.model_copy(update={"errors": (0.4, 0.45, 0.4)}) for trial in made_trials()]
    assert accuracy_model.calibrate_accuracy(evidence(hopeless)).recovery[0].by_count == (1.0, 1.0, 1.0)


def test_floors_fall_with_the_drop_and_rise_with_the_classes() -> None:
    """Floors fall with the drop, rise with the classes, and stay within the tried range."""
    trials = made_trials(noise=0.2)
    rows = accuracy_model.calibrate_accuracy(evidence(trials)).recovery
    for stricter, looser in itertools.pairwise(rows):
        assert all(a >= b for a, b in zip(stricter.by_count, looser.by_count, strict=True))
    for row in rows:
        assert list(row.by_count) == sorted(row.by_count)
        assert min(row.by_count) >= 0.1


def test_a_harder_class_needs_more() -> None:
    """The class with more errors at the same retention gets the higher floor."""
    for row in accuracy_model.calibrate_accuracy(evidence(made_trials())).recovery:
        assert row.class_need[1] > row.class_need[0] > row.class_need[2]


def test_a_collapsed_trial_plan_is_left_out() -> None:
    """A trial plan that gets nearly everything wrong does not change the floors of small drops."""
    trials = made_trials()
    lost = trials[0].model_copy(update={"errors": (0.99, 0.98, 0.99)})
    with_it = accuracy_model.calibrate_accuracy(evidence([*trials, lost]))
    assert with_it.fused_accuracy == accuracy_model.calibrate_accuracy(evidence(trials)).fused_accuracy
