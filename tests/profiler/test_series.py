"""Worth of half-blocks and embed dims in series: networks with a block that does nothing, or all."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from planner.errors import InputError
from planner.network.data import Samples
from planner.network.surgery import Selection
from planner.network.vit import Block, Shape, VisionTransformer
from planner.profiler import series
from planner.profiler.importance import measure_importance
from planner.profiler.importance_sums import UnitImportance
from planner.profiler.recovered_loss import RecoveredLoss
from planner.profiler.series import LossesOf, best_half_exponent, num_losses, units_by_worth, width_retention
from tests.helpers.plain_vit import random_images, random_model

SHAPE = Shape(
    image_size=8,
    patch_size=4,
    in_channels=2,
    num_classes=3,
    embed_dim=16,
    head_dim=4,
    num_heads=(4, 4, 4),
    hidden_dim=(16, 16, 16),
)
WIDTHS = (16, 8, 4)
GROUPS = [[[i, i + 1] for i in range(0, 16, 2)]] * 3
SAMPLES = Samples(random_images(SHAPE, 30), torch.arange(30) % 3)


def for_each(loss_of: Callable[[Selection], float]) -> LossesOf:
    """Return the losses of selections, each by itself."""
    return lambda selections: [loss_of(selection) for selection in selections]


def model_with(silent: Sequence[int]) -> VisionTransformer:
    """Return a random model in which these blocks write nothing to the stream."""
    model = random_model(SHAPE)
    with torch.no_grad():
        for l in silent:
            block = model.blocks[l]
            assert isinstance(block, Block)
            for half in block.halves:
                assert half is not None
                half.output_layer.weight.zero_()
                half.output_layer.bias.zero_()
    return model


def flat_importance(totals: Sequence[float]) -> UnitImportance:
    """Return importance that is alike for all units of a block, with this total of each half-block."""
    sizes = np.array(totals)[None, :, None] * np.ones((3, 1, 1))
    return UnitImportance(sizes * np.full(4, 1 / 4), sizes * np.full(16, 1 / 16), np.ones((3, 16)), exponent=1.0)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_a_block_that_does_nothing_is_worth_nothing(exponent: float) -> None:
    """Whatever the exponent, no class has a share of its units, and they are taken last."""
    importance = measure_importance("thinned", model_with([1]), SAMPLES)
    units = units_by_worth(importance, GROUPS, exponent, SHAPE)
    assert sum(unit.worth for unit in units) == pytest.approx(1)
    assert {unit.block for unit in units if unit.worth == 0} == {1}
    assert {unit.block for unit in units[-12:]} == {1}


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_a_block_that_does_all_is_worth_all(exponent: float) -> None:
    """With two silent blocks, the third has the whole worth."""
    importance = measure_importance("thinned", model_with([0, 2]), SAMPLES)
    units = units_by_worth(importance, GROUPS, exponent, SHAPE)
    assert sum(unit.worth for unit in units if unit.block == 1) == pytest.approx(1)


def test_units_are_taken_by_worth_per_mac() -> None:
    """A head of 2 * 4 (2 * 16 + 5) MACs a token, a group of two channels of 4 * 16: by hand, for two blocks."""
    units = units_by_worth(flat_importance([1.0, 1.0, 1.0]), GROUPS, 1.0, SHAPE)
    macs = {True: 5 * 8 * (2 * 16 + 5), False: 5 * 4 * 16}
    ratios = [unit.worth / macs[unit.head is not None] for unit in units]
    assert ratios == sorted(ratios, reverse=True)
    assert len(units) == 3 * (4 + 8)


def test_the_exponent_with_the_lowest_loss_is_taken() -> None:
    """Where some of a block is needed whatever its importance, a low exponent wins; of equals, the highest."""
    importance = flat_importance([1.0, 1e-4, 1.0])
    seen: list[Selection] = []

    def loss_of(selection: Selection) -> float:
        seen.append(selection)
        return 1.0 if selection.heads[1] or selection.channels[1] else 2.0

    taken = best_half_exponent(importance, GROUPS, SHAPE, WIDTHS, for_each(loss_of))
    assert taken < 1
    assert len(seen) == len(series.HALF_EXPONENTS)
    assert {len(selection.embed_dims) for selection in seen} == {8}
    # Those that keep nothing of the block are the higher exponents.
    needed = [bool(selection.heads[1] or selection.channels[1]) for selection in seen]
    assert needed == sorted(needed)
    assert taken == series.HALF_EXPONENTS[needed.index(True)]
    assert best_half_exponent(importance, GROUPS, SHAPE, WIDTHS, for_each(lambda selection: 1.0)) == 1.0


@pytest.mark.parametrize(("scale", "about"), [(10.0, 0.55), (500.0, 0.9)])
def test_a_width_retains_what_has_the_same_loss(scale: float, about: float) -> None:
    """A loss of 2^-10r for a worth of r: a width that doubles it keeps as much as 0.1 less worth, by 8 as 0.3 less."""
    units = units_by_worth(flat_importance([1.0, 1.0, 1.0]), GROUPS, 1.0, SHAPE)
    worth_of = {(unit.block, unit.head, unit.channels): unit.worth for unit in units}
    compared: list[float] = []

    def loss_of(selection: Selection) -> float:
        heads = sum(worth_of[l, h, ()] for l, block in enumerate(selection.heads) for h in block)
        groups = [(l, group) for l in range(3) for group in GROUPS[l] if set(group) <= set(selection.channels[l])]
        worth = heads + sum(worth_of[l, None, tuple(group)] for l, group in groups)
        if (width := len(selection.embed_dims)) < 16:
            compared.append(worth)
        return float({16: scale, 8: 2 * scale, 4: 8 * scale}[width] * 2 ** (-10 * worth))

    retained = width_retention(units, SHAPE, WIDTHS, for_each(loss_of))
    worth, same_worth = compared
    assert worth == same_worth
    # The first of 0.9, 0.75, 0.55 and so on with a loss of a tenth.
    assert about <= worth < about + 0.15
    expected = {16: 1.0, 8: 1 - 0.1 / worth, 4: 1 - 0.3 / worth}
    assert retained == {width: pytest.approx(share, abs=1e-3) for width, share in expected.items()}


def test_a_narrower_width_never_retains_more() -> None:
    """Losses that happen to fall with the width are noise."""
    units = units_by_worth(flat_importance([1.0, 1.0, 1.0]), GROUPS, 1.0, SHAPE)
    losses = {16: 1.0, 8: 0.9, 4: 0.1}
    retained = width_retention(units, SHAPE, WIDTHS, for_each(lambda kept: losses[len(kept.embed_dims)]))
    assert 1 > retained[8] >= retained[4] > 0
    free = width_retention(units, SHAPE, WIDTHS, for_each(lambda kept: float(len(kept.embed_dims) == 16)))
    assert free == {16: 1.0, 8: 0.999, 4: 0.999}
    assert width_retention(units, SHAPE, (16,), for_each(lambda kept: 1.0)) == {16: 1.0}


# Losses


def test_what_is_not_cut_loses_nothing(tmp_path: Path) -> None:
    """The whole model as a sub-model has a loss of zero; less of it has more."""
    losses_of = RecoveredLoss(random_model(SHAPE), SAMPLES, tmp_path / "losses.json", 0)
    whole = Selection.of([range(4)] * 3, [range(16)] * 3, range(16))
    few = Selection.of([[0]] * 3, [range(2)] * 3, range(16))
    of_whole, of_few, again = losses_of([whole, few, few])
    assert of_whole == pytest.approx(0, abs=1e-6)
    assert again == of_few > 1e-3


def test_losses_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stopped measurement left in its file is not measured again, and counts as done."""
    few, counted = Selection.of([[0]] * 3, [range(2)] * 3, range(8)), list[int]()
    loss = RecoveredLoss(random_model(SHAPE), SAMPLES, tmp_path / "losses.json", 0)([few])
    monkeypatch.setattr("planner.profiler.recovered_loss.reconstruct", None)
    again = RecoveredLoss(random_model(SHAPE), SAMPLES, tmp_path / "losses.json", 0, counted.append)
    assert again([few]) == loss
    assert counted[-1] == 1
    with pytest.raises(InputError, match=r"losses\.json: holds the losses of another measurement; delete it to begin"):
        RecoveredLoss(random_model(SHAPE), SAMPLES, tmp_path / "losses.json", 1)


def test_one_image_is_enough_for_a_loss(tmp_path: Path) -> None:
    """With a single image, it is the one that is looked at, too."""
    one = Samples(SAMPLES.images[:1], SAMPLES.labels[:1])
    few = Selection.of([[0]] * 3, [range(2)] * 3, range(8))
    assert np.isfinite(RecoveredLoss(random_model(SHAPE), one, tmp_path / "losses.json", 0)([few])).all()


def test_the_number_of_losses_is_known(tmp_path: Path) -> None:
    """Five exponents, six levels and two narrower widths; with a single width, the exponents alone."""
    done: list[int] = []
    model = random_model(SHAPE)
    importance = measure_importance("thinned", model, SAMPLES)
    losses_of = RecoveredLoss(model, SAMPLES, tmp_path / "losses.json", 0, done.append)
    exponent = best_half_exponent(importance, GROUPS, SHAPE, WIDTHS, losses_of)
    width_retention(units_by_worth(importance, GROUPS, exponent, SHAPE), SHAPE, WIDTHS, losses_of)
    assert done[-1] == num_losses(WIDTHS) == 13
    assert num_losses((16,)) == 5
