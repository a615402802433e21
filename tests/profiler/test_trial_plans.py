"""Trial plans: what their sub-models keep, and how their errors are counted."""

import numpy as np
import pytest
import torch

from planner.library import load_profile
from planner.network import audit, data
from planner.network.checkpoint import load_model
from planner.network.distillation_data import make_distillation_data, split_validation
from planner.network.evaluation import apply_in_batches
from planner.network.surgery import Selection
from planner.profiler import trial_plans
from planner.profiler.calibration import Calibration
from planner.profiler.trial_designs import TrialDevice, UnitChoice
from planner.profiler.trial_plans import TrialSetting, run_trial
from planner.rules.retention import unit_shares
from tests.helpers.trials import CHOICES


@pytest.fixture(scope="module")
def setting() -> TrialSetting:
    """A few images of the digits ViT, and no retraining."""
    card, whole = load_model("digits-vit")
    learned = make_distillation_data(whole, data.load(card, "train", max_per_class=10), data.Jitter(0.0, 0.0), seed=0)
    samples = data.load(card, "calibration", max_per_class=6)
    is_right = apply_in_batches(whole, samples.images).argmax(1) == samples.labels
    training, validation = split_validation(learned, seed=0)
    return TrialSetting(load_profile("digits-vit"), whole, training, validation, Calibration(samples, is_right), 0.0, 0)


def halves(share: float, choice: UnitChoice = "own") -> tuple[TrialDevice, ...]:
    """Return two devices of five classes each, the second one narrow."""
    pairs = enumerate((64, 32))
    return tuple(
        TrialDevice(classes=tuple(range(5 * d, 5 * d + 5)), embed_dim=e, share=share, choice=choice) for d, e in pairs
    )


def test_errors_are_those_on_the_calibration_images(setting: TrialSetting) -> None:
    """What the plan loses and gains against the whole model adds up to its errors, class by class at most all."""
    trial = run_trial(setting, halves(0.3))
    calibration = setting.calibration
    images, whole_errors = calibration.counts(10)
    assert images.tolist() == [6] * 10
    assert sum(trial.errors) == whole_errors.sum() + trial.num_lost - trial.num_gained
    assert all(0 <= errors <= 6 for errors in trial.errors)
    assert trial.num_lost > 0
    shares = unit_shares(setting.profile)
    for device, kept in zip(trial.devices, trial.kept(shares.shape[1]), strict=True):
        assert (shares @ kept)[list(device.classes)].min() >= 0.3 - 1e-6
        assert (shares @ kept).max() < 1


def test_units_are_chosen_as_the_design_says(setting: TrialSetting) -> None:
    """For all classes, equal shares are equal units; those that others lack are mostly other units, as many or more."""
    own, same, lacking = (
        trial.kept(unit_shares(setting.profile).shape[1])
        for trial in (run_trial(setting, halves(0.3, choice)) for choice in ("own", "all", "lacking"))
    )
    shared = [(first & second).sum() / min(first.sum(), second.sum()) for first, second in (own, same, lacking)]
    assert shared[1] == 1.0 > shared[0] > shared[2]
    assert (lacking @ unit_shares(setting.profile).T >= 0.3 - 1e-6).all()


def test_the_same_trial_plan_comes_out_every_time(setting: TrialSetting) -> None:
    """To the last error, and the networks that all trial plans share stay as they are."""
    before = [p.clone() for p in setting.whole.parameters()]
    assert run_trial(setting, halves(0.2)) == run_trial(setting, halves(0.2))
    assert all(map(torch.equal, before, setting.whole.parameters()))


def test_a_trial_plan_of_everything_loses_nothing(setting: TrialSetting) -> None:
    """One device that keeps the whole model is fused to the whole model's own answers."""
    trial = run_trial(setting, (TrialDevice(classes=tuple(range(10)), embed_dim=64, share=1.0, choice="own"),))
    assert trial.kept_units == (tuple(range(unit_shares(setting.profile).shape[1])),)
    assert trial.num_lost <= 1


def test_the_macs_of_a_trial_plan_are_those_of_its_networks(setting: TrialSetting) -> None:
    """Counted by fvcore, but for the norms of half-blocks that a cut leaves out."""
    profile, whole = setting.profile, setting.whole
    for choice in CHOICES:
        devices = halves(0.8, choice)
        cuts = trial_plans.kept_by_devices(profile, devices)
        sub_models = []
        for device, kept in zip(devices, cuts, strict=True):
            dims = profile.kept_embed_dims(device.embed_dim)
            assert dims is not None
            sub_models.append(Selection.of(*trial_plans.heads_and_channels(profile, kept), dims).cut(whole))
        expected = sum(audit.count(network).macs for network in sub_models) / audit.count(whole).macs
        assert trial_plans.relative_macs(profile, devices) == pytest.approx(expected, rel=0.02)


def test_the_cheapest_cut_keeps_its_share() -> None:
    """Every own class keeps at least the share, and the stated retention of every class is exact."""
    profile = load_profile("digits-vit")
    for share in (0.2, 0.5, 1.0):
        units = trial_plans.cheapest_cut(profile, [3, 7], share)
        heads, channels = trial_plans.heads_and_channels(profile, units)
        kept = unit_shares(profile) @ units
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
        units = trial_plans.cheapest_cut(profile, [3, 7], share)
        heads, channels = trial_plans.heads_and_channels(profile, units)
        assert int(totals.argmax()) in heads[-1]
        if not share:
            assert [heads, channels] == [[[], [], [], [int(totals.argmax())]], [[]] * 4]
            assert units.sum() == 1
