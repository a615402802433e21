"""Recovery probes: what they span, and the accuracies and floors that are made of them."""

import itertools
import math

import numpy as np
import pytest
import torch

from planner.library import load_profile
from planner.network import data
from planner.network.checkpoint import load_model
from planner.network.data import Jitter, Samples
from planner.network.distillation_data import distillation_data
from planner.network.training import Epoch
from planner.profiler import accuracy_model, trial_plans
from planner.profiler.accuracy_model import Evidence
from planner.profiler.trial_plans import TrialDevice, TrialPlan
from planner.rules.accuracy import class_errors

WIDTHS = {64: 1.0, 48: 0.8, 32: 0.6}
HELD = 2000


@pytest.mark.parametrize("num_classes", [2, 3, 10, 1000])
def test_probes_are_plans(num_classes: int) -> None:
    """In every probe each class is on one device, and no device is without a class."""
    probes = trial_plans.trial_designs(num_classes, WIDTHS, seed=0)
    assert len(probes) == trial_plans.NUM_PROBES
    for devices in probes:
        assert sorted(c for device in devices for c in device.classes) == list(range(num_classes))
        assert all(device.classes for device in devices)
        assert all(0.1 < device.share <= 1 for device in devices)


def test_probes_span_what_plans_differ_in() -> None:
    """One device and five, every width, small shares and large, equal devices and unequal ones."""
    probes = trial_plans.trial_designs(10, WIDTHS, seed=0)
    assert {len(devices) for devices in probes} == {1, 2, 3, 5}
    assert {device.embed_dim for devices in probes for device in devices} == set(WIDTHS)
    shares = [device.share for devices in probes for device in devices]
    assert min(shares) < 0.25 < 0.95 < max(shares)
    unequal = [devices for devices in probes if len({device.share for device in devices}) > 1]
    assert 3 <= len(unequal) <= trial_plans.NUM_PROBES - 3


def test_probes_cost_no_more_than_ten_plans() -> None:
    """A plan of five devices trains five sub-models; all probes together train less than fifty."""
    assert sum(map(len, trial_plans.trial_designs(10, WIDTHS, seed=0))) <= 10 * 5


def test_epochs_are_counted_as_they_are_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that is really run, too short to end early, trains as many epochs as were counted."""
    monkeypatch.setattr(trial_plans, "EPOCHS", 2)
    profile = load_profile("digits-vit")
    card, whole = load_model("digits-vit")
    learned, others = data.fold(data.load(card, "train", per_class=9), 0, 3, seed=0)
    lessons = distillation_data(whole, learned, Jitter(0.0, 0.0), seed=0)
    judges = trial_plans.HoldOut(others, torch.zeros(1, len(others), 4))
    setting = trial_plans.TrialSetting(profile, whole, lessons, lessons.take(torch.arange(5)), judges, seed=0)
    devices = trial_plans.trial_designs(10, WIDTHS, seed=0)[3]
    trained: list[Epoch] = []
    probe = trial_plans.run_trial(setting, devices, trained.append)
    assert len(trained) == trial_plans.num_epochs([devices])
    assert probe.images == (3,) * 10


def test_errors_are_counted_class_by_class_over_all_copies() -> None:
    """Of two copies, one mirrored: a class answered right only as it is errs by half, one without images not at all."""
    images = torch.tensor([[0.0, 1.0], [0.0, 1.0], [2.0, 0.0]]).view(3, 1, 1, 2).expand(3, 1, 2, 2).contiguous()
    moves = torch.zeros(2, 3, 4)
    moves[1, :, 3] = 1
    judges = trial_plans.HoldOut(Samples(images, torch.tensor([1, 0, 3])), moves)

    def answer(images: torch.Tensor) -> torch.Tensor:
        # Brighter on the right: class 1; on the left: class 3.
        right = images[:, 0, 0, 1] > images[:, 0, 0, 0]
        return torch.nn.functional.one_hot(torch.where(right, 1, 3), 4).float()

    assert trial_plans.held_out_errors(answer, judges, 4) == (1.0, 0.5, 0.0, 0.5)


def test_the_cheapest_cut_keeps_what_it_promises() -> None:
    """Every own class keeps at least the share; what is said of every class is what is kept of it."""
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


# What made the probes below: ln e = -4 + o_c + 0.4 ln n - 2 ln best - 0.3 ln(all / best), a width retains rho^0.4.
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


def made_probes(seed: int = 0, noise: float = 0.0) -> list[TrialPlan]:
    """Return probes of one to three devices whose errors are those of the model above, times a lognormal."""
    rng = np.random.default_rng(seed)
    probes = []
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
        probes.append(
            TrialPlan(devices=tuple(devices), unit_retention=retention, images=(HELD,) * 3, errors=tuple(errors))
        )
    return probes


def evidence(probes: list[TrialPlan], whole_error: float = 0.01) -> Evidence:
    """Return probes with everything they are judged by."""
    return Evidence(probes, RHO, whole_error)


def test_the_model_that_made_the_probes_is_found() -> None:
    """Exact errors give weights, offsets and the price of a narrow width back."""
    found = accuracy_model.calibrate(evidence(made_probes()))
    model = found.fused_accuracy
    got = (model.intercept, model.log_num_classes, model.log_best_retention, model.log_other_retention)
    assert got == pytest.approx((-4, 0.4, 2, 0.3), abs=0.1)
    assert model.class_offset == pytest.approx(OFFSETS, abs=0.06)
    assert found.embed_retention[4] == pytest.approx((RHO[4] ** 0.4).tolist(), abs=1e-6)
    assert found.embed_retention[8] == [1.0] * 3
    assert model.log_error < 0.05


def test_the_error_of_the_model_is_that_of_new_probes() -> None:
    """Probes that scatter by 30 % are predicted about that well, no better: errors are not fitted away."""
    found = accuracy_model.calibrate(evidence(made_probes(noise=0.3)))
    fresh = made_probes(seed=1, noise=0.3)
    logs = []
    for probe in fresh:
        retained = accuracy_model.retained(probe, RHO, 0.4)
        predicted = class_errors(found.fused_accuracy, retained).sum()
        logs.append(math.log(predicted / sum(probe.errors)))
    assert found.fused_accuracy.log_error == pytest.approx(np.sqrt(np.mean(np.square(logs))), rel=0.5)
    assert 0.1 < found.fused_accuracy.log_error < 0.4


def errors_at(floors: list[float], num_classes: int, others: float) -> float:
    """Return the mean error that the model above gives one of 3 / n devices, the others retaining so much as well."""
    helped = (1 + others * (3 / num_classes - 1)) ** -0.3
    return helped * sum(math.exp(-4 + o) * num_classes**0.4 * r**-2 for o, r in zip(OFFSETS, floors, strict=True)) / 3


def others_of(probes: list[TrialPlan]) -> float:
    """Return what a device retains beside the one that retains most, on the mean over probes and classes."""
    ratios = []
    for probe in (p for p in probes if len(p.devices) > 1):
        of_classes = []
        for c in range(3):
            pairs = zip(probe.devices, probe.unit_retention, strict=True)
            kept = [units[c] * RHO[device.embed_dim][c] ** 0.4 for device, units in pairs]
            of_classes.append((sum(kept) / max(kept) - 1) / (len(kept) - 1))
        ratios.append(sum(of_classes) / 3)
    return sum(ratios) / len(ratios)


@pytest.mark.parametrize("num_classes", [1, 2, 3])
def test_at_the_floors_the_mean_error_is_what_is_allowed(num_classes: int) -> None:
    """With every class at its floor, an equal split errs as much as sqrt((0.01 + 0.05)^2 - 0.01^2), on the mean."""
    probes = made_probes()
    row = {r.max_accuracy_drop: r for r in accuracy_model.calibrate(evidence(probes)).recovery}[0.05]
    floors = [row.by_count[num_classes - 1] * need for need in row.class_need]
    allowed = math.sqrt(0.06**2 - 0.01**2)
    assert errors_at(floors, num_classes, others_of(probes)) == pytest.approx(allowed, rel=0.05)


def test_no_other_floors_of_the_same_sum_err_less() -> None:
    """What one class is given is taken from another: that never helps."""
    row = {r.max_accuracy_drop: r for r in accuracy_model.calibrate(evidence(made_probes())).recovery}[0.05]
    floors = [row.by_count[1] * need for need in row.class_need]
    best = errors_at(floors, 2, 0.5)
    for giver, taker in itertools.permutations(range(3), 2):
        moved = [r - 0.05 * (c == giver) + 0.05 * (c == taker) for c, r in enumerate(floors)]
        assert errors_at(moved, 2, 0.5) > best


def test_a_drop_that_nothing_reaches_needs_all() -> None:
    """Where even the unpruned model is predicted to lose more, the floor is everything."""
    hopeless = [probe.model_copy(update={"errors": (0.4, 0.45, 0.4)}) for probe in made_probes()]
    assert accuracy_model.calibrate(evidence(hopeless)).recovery[0].by_count == (1.0, 1.0, 1.0)


def test_floors_fall_with_the_drop_and_rise_with_the_classes() -> None:
    """A larger drop never asks for more, more classes never for less; no floor is below what was probed."""
    probes = made_probes(noise=0.2)
    rows = accuracy_model.calibrate(evidence(probes)).recovery
    for stricter, looser in itertools.pairwise(rows):
        assert all(a >= b for a, b in zip(stricter.by_count, looser.by_count, strict=True))
    for row in rows:
        assert list(row.by_count) == sorted(row.by_count)
        assert min(row.by_count) >= 0.1


def test_a_harder_class_needs_more() -> None:
    """The class that errs more at the same retention gets the higher floor."""
    for row in accuracy_model.calibrate(evidence(made_probes())).recovery:
        assert row.class_need[1] > row.class_need[0] > row.class_need[2]


def test_a_collapsed_probe_is_left_out() -> None:
    """A probe that gets nearly all wrong does not move what is said of small drops."""
    probes = made_probes()
    lost = probes[0].model_copy(update={"errors": (0.99, 0.98, 0.99)})
    with_it = accuracy_model.calibrate(evidence([*probes, lost]))
    assert with_it.fused_accuracy == accuracy_model.calibrate(evidence(probes)).fused_accuracy
