"""Designs of trial plans: class subsets, what they vary, and the losses that they aim at."""

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.arrays import Floats
from planner.profiler.trial_designs import TrialDevice, trial_design
from planner.rules.retention import FleetRetention

TARGETS = (0.02, 0.1, 0.005, 0.05, 0.2, 0.01, 0.03)


def rho_of(num_classes: int) -> dict[int, Floats]:
    """Return three widths, the full one first."""
    return {64: np.ones(num_classes), 48: np.full(num_classes, 0.9), 32: np.linspace(0.5, 0.7, num_classes)}


def free(devices: tuple[TrialDevice, ...]) -> bool:
    """Let any trial plan be affordable."""
    return True


def square(retention: FleetRetention) -> float:
    """Return a loss that falls with what is retained where it is most: the mean square of what is removed."""
    return float(((1 - retention.highest) ** 2).mean())


def retained_by(devices: tuple[TrialDevice, ...], rho: Mapping[int, Floats]) -> FleetRetention:
    """Return what devices retain of every class if heads and channels are of the same use for all."""
    by_device = np.array([device.share * rho[device.embed_dim] for device in devices])
    of_width, shares = max(rho[d.embed_dim].max() for d in devices), [device.share for device in devices]
    together = {"own": 1 - np.prod([1 - s for s in shares]), "all": max(shares), "lacking": min(1.0, sum(shares))}
    return FleetRetention(by_device, np.maximum(by_device.max(axis=0), of_width * together[devices[0].choice]))


@settings(deadline=None)
@given(num_classes=st.integers(1, 40), number=st.integers(0, 63), seed=st.integers(0, 5))
def test_each_class_is_on_one_device(num_classes: int, number: int, seed: int) -> None:
    """No device is without a class, and shares are of what there is; the same call gives the same design."""
    devices = trial_design(number, rho_of(num_classes), square, free, seed)
    assert sorted(c for device in devices for c in device.classes) == list(range(num_classes))
    assert all(device.classes for device in devices)
    assert all(0.05 <= device.share <= 1 for device in devices)
    assert len(devices) == min(num_classes, (2, 1, 4, 3, 6)[number % 5])
    assert devices == trial_design(number, rho_of(num_classes), square, free, seed)


@pytest.mark.parametrize("seed", range(3))
def test_every_property_takes_its_values(seed: int) -> None:
    """Of 32: one to six devices, every width, equal and unequal subsets and shares, whatever the others are."""
    designs = [trial_design(number, rho_of(10), square, free, seed) for number in range(32)]
    counts = Counter(len(devices) for devices in designs)
    assert counts.keys() == {1, 2, 3, 4, 6}
    assert min(counts.values()) >= 6
    widths = Counter(devices[0].embed_dim for devices in designs)
    assert widths.keys() == {64, 48, 32}
    assert widths[64] >= 8
    for count in (2, 3, 4, 6):
        sizes = [[len(device.classes) for device in devices] for devices in designs if len(devices) == count]
        assert any(max(of) - min(of) <= 1 for of in sizes)
        assert any(max(of) - min(of) > 1 for of in sizes)
        shares = [{device.share for device in devices} for devices in designs if len(devices) == count]
        assert {len(of) == 1 for of in shares} == {True, False}
    assert any(len({device.embed_dim for device in devices}) > 1 for devices in designs)
    # How units are chosen, beside every number of devices that can be told apart by it.
    assert all(len({device.choice for device in devices}) == 1 for devices in designs)
    assert {(len(devices), devices[0].choice) for devices in designs if len(devices) > 1} == {
        (count, choice) for count in (2, 3, 4, 6) for choice in ("own", "all", "lacking")
    }


def test_equal_fleets_take_each_width_in_turn() -> None:
    """Of the first dozen equal fleets two keep each narrow width and four the full one, with other device counts."""
    numbers = [n for n in range(24) if n // 5 % 2 == 0][:12]
    designs = [trial_design(n, rho_of(10), square, free, 0) for n in numbers]
    assert all(len({device.embed_dim for device in devices}) == 1 for devices in designs)
    counts_of = {e: [len(d) for d in designs if d[0].embed_dim == e] for e in (64, 48, 32)}
    assert {e: len(counts) for e, counts in counts_of.items()} == {64: 6, 48: 3, 32: 3}
    assert all(len(set(counts)) == len(counts) for e, counts in counts_of.items() if e != 64)


def steep(retention: FleetRetention) -> float:
    """Return a loss of nearly all or nearly nothing."""
    return float((1 / (1 + (retention.highest / 0.6) ** 12)).mean())


def together(retention: FleetRetention) -> float:
    """Return a loss that falls with what all devices retain together."""
    return float((1 - retention.union).mean())


def flat(retention: FleetRetention) -> float:
    """Return a loss of next to nothing."""
    return 0.001 * square(retention)


@pytest.mark.parametrize("loss", [square, steep, together])
def test_losses_are_those_aimed_at(loss: Callable[[FleetRetention], float]) -> None:
    """Where a loss can be reached, it is, to what rounding of shares allows; else all is kept, or nothing."""
    reached = 0
    for number in range(35):
        rho = rho_of(10)
        devices = trial_design(number, rho, loss, free, seed=0)
        found, target = loss(retained_by(devices, rho)), TARGETS[number % 7]
        if all(device.share == 1 for device in devices):
            assert found >= target - 1e-12
        else:
            assert found == pytest.approx(target, abs=2e-3)
            reached += 1
    assert reached >= 20


def test_a_loss_out_of_reach() -> None:
    """Of a model that loses nothing, devices keep the least; of one that always loses all, everything."""
    for number in range(10):
        for device in trial_design(number, rho_of(10), flat, free, seed=0):
            assert device.share == 0.05
    for number in range(10):
        for device in trial_design(number, rho_of(10), lambda retention: 1.0, free, seed=0):
            assert device.share == 1


@pytest.mark.parametrize("number", range(10))
def test_what_is_too_dear_removes_more(number: int) -> None:
    """Down to what is affordable and no further, or to the loss aimed at where that is less."""
    rho = rho_of(10)

    def total(devices: tuple[TrialDevice, ...]) -> float:
        return sum(device.share for device in devices)

    wanted = trial_design(number, rho, square, free, seed=0)
    found = trial_design(number, rho, square, lambda devices: total(devices) <= 1.5, seed=0)
    if total(wanted) <= 1.5:
        assert found == wanted
    else:
        assert total(found) == pytest.approx(1.5, abs=1e-3)
        assert total(found) <= 1.5
        assert [d.classes for d in found] == [d.classes for d in wanted]


def test_another_seed_draws_other_subsets() -> None:
    """The number of devices stays, who serves what changes."""
    first, second = (trial_design(2, rho_of(10), square, free, seed) for seed in (0, 1))
    assert len(first) == len(second)
    assert [d.classes for d in first] != [d.classes for d in second]
