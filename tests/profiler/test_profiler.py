"""Profiles: built at once, built in two runs, built of a card without weights."""

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from planner.errors import InputError
from planner.library import load_profile
from planner.network import audit, data
from planner.network.checkpoint import find_card, load_card, load_model, whole_shape
from planner.profiler import trial_plans
from planner.profiler.build import ProfileOptions, Stage, build_profile
from planner.profiler.device import local_latency
from planner.profiler.trial_plans import TrialPlan
from planner.schema import ModelCard, Profile

OPTIONS = ProfileOptions(images_per_class=30, num_trials=3)
STAGE = "execute trial plans"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make profiles of few and short trial plans."""
    monkeypatch.setattr(trial_plans, "DEFAULT_EPOCHS", 1)
    monkeypatch.setattr(local_latency, "_ROUNDS", 1)
    monkeypatch.setattr(local_latency, "_SECONDS_PER_ROUND", 0.001)


def test_an_interrupted_profile_goes_on(quick: None, tmp_path: Path) -> None:
    """A profile stopped in the second trial plan repeats nothing and equals an unbroken one."""

    class StoppedError(Exception):
        pass

    def stop(stage: Stage) -> None:
        if stage.name == STAGE and stage.done == of_first + 1:
            raise StoppedError

    of_first = trial_plans.num_epochs(trial_plans.trial_designs(10, {64: 1.0}, OPTIONS.seed)[:1])
    unbroken = build_profile("digits-vit", tmp_path / "unbroken", OPTIONS)
    work = tmp_path / "broken"
    with pytest.raises(StoppedError):
        build_profile("digits-vit", work, OPTIONS, stop)
    made: list[int] = []
    original = trial_plans.run_trial

    def counted(*args: Any) -> TrialPlan:
        made.append(len(args[1]))
        return original(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial_plans, "run_trial", counted)
        resumed = build_profile("digits-vit", work, OPTIONS)
    assert made == [1, 5]
    without_timing = [p.model_dump(exclude={"latency"}) for p in (resumed, unbroken)]
    assert without_timing[0] == without_timing[1]
    with pytest.raises(InputError, match=r"another|other"):
        build_profile("digits-vit", work, dataclasses.replace(OPTIONS, seed=1))


def test_the_test_part_is_never_read(quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Profiling reads the training part alone."""
    parts: list[str] = []
    original = data.load

    def counted(card: ModelCard, part: data.DataPart, per_class: int | None) -> data.Samples:
        parts.append(part)
        return original(card, part, per_class)

    monkeypatch.setattr(data, "load", counted)
    build_profile("digits-vit", tmp_path, dataclasses.replace(OPTIONS, num_trials=1))
    assert set(parts) == {"train"}


def test_a_card_without_weights_has_costs(quick: None, tmp_path: Path) -> None:
    """Without weights, importance is assumed proportional to MACs, and no accuracy is predicted."""
    card = json.loads(find_card("digits-vit").read_text())
    bare = {key: card[key] for key in ("model", "description", "architecture", "classes")}
    (tmp_path / "card.json").write_text(json.dumps(bare))
    profile = build_profile(str(tmp_path / "card.json"), tmp_path / "work")
    shipped = load_profile("digits-vit")
    assert [w.embed_dim for w in profile.widths] == [64, 48, 32, 24, 16]
    costs = [(p.widths[0].fixed_macs, p.widths[0].head_macs, p.widths[0].channel_params) for p in (profile, shipped)]
    assert costs[0] == costs[1]
    heads, groups = profile.importance.heads, profile.importance.channel_groups
    assert len(set(heads)) == len(set(groups)) == 1
    width = profile.widths[0]
    assert heads[0][0][0] / groups[0][0][0] == pytest.approx(width.head_macs[0] / (8 * width.channel_macs[0]), rel=1e-3)
    narrow = profile.width(32)
    assert narrow is not None
    assert narrow.embed_retention == (0.5,) * 10
    assert profile.provenance["importance"] == "assumed: each unit matters as much as its MACs"
    assert (profile.recovery, profile.fused_accuracy) == ((), None)


def test_a_card_without_data_is_refused(tmp_path: Path) -> None:
    """Importance cannot be measured without images."""
    path = find_card("digits-vit")
    card = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("data", "preprocessing")}
    (tmp_path / "card.json").write_text(json.dumps(card))
    shutil.copy(path.parent / "weights.safetensors", tmp_path)
    with pytest.raises(InputError, match=r"the card must name its data .* got none"):
        build_profile(str(tmp_path / "card.json"), tmp_path / "work")


def test_the_shipped_profile_is_of_the_shipped_model() -> None:
    """Hash, classes and costs agree with the checkpoint, and counts add up to the whole."""
    profile, card = load_profile("digits-vit"), load_card("digits-vit")
    assert (profile.weights_sha256, profile.classes) == (card.weights_sha256, card.classes)
    fixed, head, channel = audit.audit(whole_shape(card))
    width = profile.widths[0]
    assert (width.fixed_macs, width.fixed_params) == (fixed.macs, fixed.params)
    assert set(width.head_macs) == {head.macs}
    assert set(width.channel_params) == {channel.params}
    whole = sum(p.numel() for p in load_model("digits-vit")[1].parameters())
    assert whole == fixed.params + 16 * head.params + 1024 * channel.params


def test_the_shipped_profile_keeps_everything_if_nothing_is_pruned() -> None:
    """The importance of each class sums to 1, closely enough for a floor of 1."""
    profile: Profile = load_profile("digits-vit")
    for heads, groups in zip(profile.importance.heads, profile.importance.channel_groups, strict=True):
        assert math.fsum(x for half in (heads, groups) for block in half for x in block) == pytest.approx(1, abs=1e-9)
