"""Profiles: floors from probes, latency from timings, and a build that resumes."""

import dataclasses
import itertools
import math
from pathlib import Path

import pytest

from planner.errors import InputError
from planner.network import audit, recover
from planner.network.checkpoint import load_card, load_model, whole_shape
from planner.network.vit import Shape
from planner.profiler import build, latency, recovery
from planner.profiler.build import Stage, build_profile
from planner.profiler.recovery import Probe
from planner.schema import Profile
from planner.shipped import load_profile

DIGITS = Shape(8, 2, 1, 10, embed_dim=64, head_dim=16, num_heads=(4,) * 4, hidden_dim=(256,) * 4)
HELD = 1000


def probe(num_classes: int, share: float, steepness: float = 6.0, by_class: tuple[float, ...] = (0.0, 0.0)) -> Probe:
    """Return a probe whose error rate is exp(-1 + 0.5 log n + d_c - s r), to the nearest image."""
    rates = [math.exp(-1 + 0.5 * math.log(num_classes) + d - steepness * share) for d in by_class]
    return Probe(
        num_classes=num_classes, retention=(share,) * len(rates), errors=tuple(round(HELD * rate) for rate in rates)
    )


def test_floors_are_where_the_modelled_error_is_what_is_allowed() -> None:
    """From exact probes the floor solves exp(-1 + 0.5 log n - 6 r) = whole error + drop, by hand: 0.37 for n = 1."""
    probes = [probe(n, r) for n in (1, 2) for r in (0.1, 0.2, 0.3, 0.5)]
    rows = {row.max_accuracy_drop: row for row in recovery.calibrate(probes, [0, 0], [HELD, HELD])}
    allowed = 0.05 + 0.5 / 2001
    for n in (1, 2):
        by_hand = (-1 + 0.5 * math.log(n) - math.log(allowed)) / 6
        assert rows[0.05].by_count[n - 1] == pytest.approx(by_hand, abs=0.02)
    assert rows[0.05].class_need == pytest.approx((1.0, 1.0), abs=0.05)


def test_floors_fall_with_the_drop_and_rise_with_the_classes() -> None:
    """A larger drop never asks for more, more classes never for less."""
    probes = [probe(n, r) for n in (1, 2) for r in (0.1, 0.3, 0.5)]
    rows = recovery.calibrate(probes, [1, 1], [HELD, HELD])
    for stricter, looser in itertools.pairwise(rows):
        assert all(a >= b for a, b in zip(stricter.by_count, looser.by_count, strict=True))
    for row in rows:
        assert list(row.by_count) == sorted(row.by_count)


def test_a_harder_class_needs_more() -> None:
    """The class with e times the errors gets the higher floor."""
    probes = [probe(n, r, by_class=(0.0, 1.0)) for n in (1, 2) for r in (0.1, 0.3, 0.5)]
    for row in recovery.calibrate(probes, [0, 0], [HELD, HELD])[:3]:
        assert row.class_need[1] > row.class_need[0]


def test_a_collapsed_probe_is_left_out() -> None:
    """A probe that gets nearly all wrong does not move the floors of small drops."""
    probes = [probe(n, r) for n in (1, 2) for r in (0.1, 0.3, 0.5)]
    collapsed = Probe(num_classes=2, retention=(0.05, 0.05), errors=(990, 990))
    assert recovery.calibrate([*probes, collapsed], [0, 0], [HELD, HELD]) == recovery.calibrate(
        probes, [0, 0], [HELD, HELD]
    )


def test_the_cheapest_cut_keeps_what_it_promises() -> None:
    """Every class keeps at least the share, and dropping the last unit taken would break that."""
    profile = load_profile("digits-vit")
    for share in (0.2, 0.5, 1.0):
        heads, channels, kept = recovery.cheapest_cut(profile, [3, 7], share)
        assert kept.min() >= share - 1e-6
        assert sum(map(len, heads)) + sum(map(len, channels)) > 0
        assert all(len(set(block)) == len(block) for block in (*heads, *channels))
    assert [len(block) for block in channels] == [profile.hidden_dim] * profile.depth


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a profile of few and short probes."""
    monkeypatch.setattr(recovery, "RETRAIN", dataclasses.replace(recover.RETRAIN, epochs=1))
    monkeypatch.setattr(recovery, "FUSE", dataclasses.replace(recover.FUSE, epochs=1))
    monkeypatch.setattr(recovery, "designs", lambda num_classes: [(5, 0.3), (5, 0.6), (10, 0.5)])
    monkeypatch.setattr(latency, "_ROUNDS", 1)
    monkeypatch.setattr(latency, "_SECONDS_PER_ROUND", 0.001)


def test_this_machine_gets_a_row_for_each_width(quick: None) -> None:
    """Each width has a row of times above zero, its source says how they were measured; each turn is called back."""
    calls = []
    rows = latency.measure(DIGITS, (64, 32), 0, lambda: calls.append(1))
    assert [(row.embed_dim, row.precision) for row in rows] == [(64, "float32"), (32, "float32")]
    for row in rows:
        assert row.fixed_us + row.attention_us + row.mlp_us > 0
        assert row.source.startswith("measured: torch 2.")
    assert len(calls) == latency.num_probes()


def test_an_interrupted_profile_goes_on(quick: None, tmp_path: Path) -> None:
    """Stopped in the second probe and started again: the first is not repeated, the profile is the unbroken one."""

    class StoppedError(Exception):
        pass

    def stop(stage: Stage) -> None:
        if stage.name == "probe what accuracy survives" and stage.done == 3:
            raise StoppedError

    unbroken = build_profile("digits-vit", tmp_path / "unbroken.probes")
    work = tmp_path / "broken.probes"
    with pytest.raises(StoppedError):
        build_profile("digits-vit", work, on_stage=stop)
    made = []
    original = recovery.run_probe
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recovery, "run_probe", lambda *args: made.append(args[1:3]) or original(*args))
        resumed = build_profile("digits-vit", work)
    assert made == [(5, 0.6), (10, 0.5)]
    without_timing = [p.model_dump(exclude={"latency"}) for p in (resumed, unbroken)]
    assert without_timing[0] == without_timing[1]
    with pytest.raises(InputError, match="other weights or another seed"):
        build_profile("digits-vit", work, seed=1)


def test_the_test_part_is_never_read(quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Profiling asks for the training part alone."""
    parts = []
    original = build.data.load
    monkeypatch.setattr(build.data, "load", lambda card, part: parts.append(part) or original(card, part))
    build_profile("digits-vit", tmp_path / "probes")
    assert set(parts) == {"train"}


def test_the_shipped_profile_is_of_the_shipped_model() -> None:
    """Hash, classes and costs agree with the checkpoint, whose whole counts are what heads and channels add up to."""
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
