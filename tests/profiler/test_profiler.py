"""Profiles: built at once, in two runs or by two processes, built of a card without weights."""

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from planner.errors import InputError
from planner.library import load_profile
from planner.network import audit, data
from planner.network.checkpoint import find_card, load_card, load_model, whole_shape
from planner.network.evaluation import apply_in_batches
from planner.profiler import fused_accuracy
from planner.profiler.build import build_profile
from planner.profiler.device import local_latency
from planner.profiler.options import ProfileOptions, Stage
from planner.profiler.trial_designs import TrialDevice
from planner.profiler.trial_plans import TrialPlan, TrialSetting, run_trial
from planner.schema import ModelCard, Profile
from planner.workers import ProcessExecutor
from tests.helpers.small_run import small_card

OPTIONS = ProfileOptions(images_per_class=5, max_trials=3, epochs=0)
STAGE = "execute trial plans"


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    """Time this machine for no longer than a moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_latency, "_ROUNDS", 1)
        patch.setattr(local_latency, "_SECONDS_PER_ROUND", 0.001)
        # Exports of all probes take longer than these profiles.
        patch.setattr(local_latency, "timing_engine", lambda: "torch")
        yield


@dataclasses.dataclass(frozen=True)
class Unbroken:
    """A profile that was built in one run: its model's card, its work folder."""

    card: str
    work: Path
    profile: Profile

    def begun(self, work: Path) -> Path:
        """Return a copy of the work folder without its trial plans."""
        shutil.copytree(self.work, work)
        (work / "trials.json").unlink()
        return work


@pytest.fixture(scope="module")
def unbroken(_quick: None, tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    """Return a profile of few images and three trial plans."""
    folder = tmp_path_factory.mktemp("unbroken")
    card, work = small_card(folder), folder / "work"
    return Unbroken(card, work, build_profile(card, work, OPTIONS))


class StoppedError(Exception):
    """An interruption."""


def stop(stage: Stage) -> None:
    """Stop after the second trial plan."""
    if (stage.name, stage.done) == (STAGE, 2):
        raise StoppedError


def without_times(profile: Profile) -> dict[str, Any]:
    """Return the keys of a profile that do not differ from run to run."""
    return profile.model_dump(exclude={"latency"})


def test_an_image_is_sent_in_a_byte_for_each_pixel(unbroken: Unbroken) -> None:
    """Images of 8 x 8 grey pixels of 8 bits are 64 bytes; features are float32."""
    assert (unbroken.profile.input_bytes, unbroken.profile.feature_bytes_per_embed_dim) == (64, 4)


def test_an_interrupted_profile_goes_on(unbroken: Unbroken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile stopped after the second trial plan repeats nothing and equals an unbroken one."""
    card, work = unbroken.card, tmp_path / "broken"
    with pytest.raises(StoppedError):
        build_profile(card, work, OPTIONS, stop)
    made: list[int] = []

    def counted(setting: TrialSetting, devices: Sequence[TrialDevice]) -> TrialPlan:
        made.append(len(devices))
        return run_trial(setting, devices)

    monkeypatch.setattr(fused_accuracy, "run_trial", counted)
    resumed = build_profile(card, work, OPTIONS)
    # The first three trial plans have two devices, one and four.
    assert made == [4]
    assert without_times(resumed) == without_times(unbroken.profile)
    assert resumed.accuracy_model is not None
    assert (len(resumed.accuracy_model.scores), resumed.accuracy_model.max_devices) == (3, 4)
    for other in ({"seed": 1}, {"images_per_class": 6}, {"epochs": 1.0}):
        with pytest.raises(InputError, match=r"another|other"):
            build_profile(card, work, dataclasses.replace(OPTIONS, **other))


def test_two_processes_make_the_same_profile(unbroken: Unbroken, tmp_path: Path) -> None:
    """Real trial plans do not depend on the process that executes them."""
    made = build_profile(unbroken.card, unbroken.begun(tmp_path / "two"), OPTIONS, workers=ProcessExecutor(2))
    assert without_times(made) == without_times(unbroken.profile)


def test_the_test_part_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Profiling reads the training part and the calibration part alone."""
    parts: list[str] = []
    original = data.load

    def counted(card: ModelCard, part: data.DataPart, max_per_class: int | None = None) -> data.Samples:
        parts.append(part)
        return original(card, part, max_per_class)

    def refused(card: ModelCard) -> NoReturn:
        pytest.fail("the test part must not be read")

    monkeypatch.setattr(data, "load", counted)
    monkeypatch.setattr(data, "load_test", refused)
    monkeypatch.setattr(data, "load_stored_test", refused)
    build_profile(small_card(tmp_path), tmp_path / "work", dataclasses.replace(OPTIONS, max_trials=1))
    assert set(parts) == {"train", "calibration"}


def test_a_profile_without_trial_plans_predicts_nothing(unbroken: Unbroken, tmp_path: Path) -> None:
    """Costs and importance are measured all the same."""
    work = unbroken.begun(tmp_path / "work")
    profile = build_profile(unbroken.card, work, dataclasses.replace(OPTIONS, max_trials=0))
    assert profile.accuracy_model is None
    assert "accuracy" not in profile.provenance
    assert profile.provenance["importance"].startswith("thinned, 50 training images")


def test_the_shipped_accuracy_model_is_of_the_shipped_data() -> None:
    """Its classes' shares and the whole model's error are those of the calibration images."""
    profile, (card, whole) = load_profile("digits-vit"), load_model("digits-vit")
    samples, model = data.load(card, "calibration"), profile.accuracy_model
    assert model is not None
    is_wrong = apply_in_batches(whole, samples.images).argmax(1) != samples.labels
    assert model.whole_error == pytest.approx(float(is_wrong.float().mean()), abs=1e-4)
    shares = torch.bincount(samples.labels) / len(samples)
    assert model.class_share == pytest.approx(shares.tolist(), abs=1e-6)
    assert len(model.scores) >= 16


def test_a_card_without_weights_has_costs(tmp_path: Path) -> None:
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
    assert profile.accuracy_model is None


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
