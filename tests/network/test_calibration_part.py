"""The calibration part: images without training, which neither the training part nor the test part has."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from planner.errors import InputError
from planner.network import data
from planner.network.checkpoint import load_card
from planner.network.data.load import MAX_CALIBRATION_IMAGES
from planner.network.data.pixels import Pixels
from planner.network.data.samples import calibration_split
from planner.schema import ModelCard, StoredPart
from tests.helpers.common import Json
from tests.helpers.image_files import SPLIT, card, idx, pixels
from tests.helpers.refusals import assert_sentence

PARTS: tuple[data.DataPart, ...] = ("train", "calibration", "test")
LABELS = st.lists(st.integers(0, 5), min_size=2, max_size=60)

# The split


def counts_of(labels: Sequence[int], indices: Iterable[int] | None = None) -> list[int]:
    """Return the number of images of each of six classes, or of those at some indices."""
    found = list(labels) if indices is None else [labels[i] for i in indices]
    return [found.count(c) for c in range(6)]


@given(labels=LABELS, max_images=st.integers(6, 100), seed=st.integers(0, 3))
def test_a_test_part_is_divided_between_calibration_and_tests(labels: list[int], max_images: int, seed: int) -> None:
    """Both sides together are all images, the first is half or what is allowed, and both have every class of two."""
    sides = [side.tolist() for side in calibration_split(np.array(labels), max_images, seed)]
    assert sorted(sides[0] + sides[1]) == list(range(len(labels)))
    assert sides == [sorted(side) for side in sides]
    assert len(sides[0]) == min(len(labels) // 2, max_images)
    for total, *on_sides in zip(counts_of(labels), *(counts_of(labels, side) for side in sides), strict=True):
        assert total < 2 or min(on_sides) >= 1


@given(labels=LABELS, seed=st.integers(0, 3))
def test_half_of_a_test_part_is_half_of_each_class(labels: list[int], seed: int) -> None:
    """Without a limit that binds, each class is halved, exact to half an image."""
    calibration, _ = calibration_split(np.array(labels), 60, seed)
    for total, here in zip(counts_of(labels), counts_of(labels, calibration), strict=True):
        assert abs(here - total / 2) <= 0.5


@given(labels=st.lists(st.integers(0, 2), min_size=12, max_size=40), max_images=st.integers(3, 8))
def test_a_limited_share_is_as_proportional_as_can_be(labels: list[int], max_images: int) -> None:
    """No other numbers of images have less of Webster's error, the sum of (seats - quota)^2 / votes.

    All numbers are tried that have the minimum of one for each class of two or more.
    """
    calibration, _ = calibration_split(np.array(labels), max_images, seed=0)
    totals = [total for total in counts_of(labels) if total]
    share = len(calibration) / len(labels)

    def error(numbers: Sequence[int]) -> float:
        return sum((n - share * total) ** 2 / total for n, total in zip(numbers, totals, strict=True))

    possible = itertools.product(*(range(int(total > 1), total + 1) for total in totals))
    best = min(error(numbers) for numbers in possible if sum(numbers) == len(calibration))
    got = [here for here, total in zip(counts_of(labels, calibration), counts_of(labels), strict=True) if total]
    assert error(got) == pytest.approx(best, abs=1e-9)


def test_the_images_of_a_class_are_drawn_by_the_seed() -> None:
    """The same seed draws the same images, another one others, and not the first of the file."""
    labels = np.repeat([0, 1], 50)
    first, again, other = (calibration_split(labels, 60, seed)[0].tolist() for seed in (0, 0, 1))
    assert first == again != other
    assert first != [*range(25), *range(50, 75)]


# The parts of each source

TRAIN, TEST, VALIDATION = ([0] * 12 + [1] * 9 + [2] * 6, [2, 0, 0, 1, 2, 0, 1, 0, 0, 1, 2], [1, 2, 0])
CLASSES = ["a", "b", "c"]
STORED = {"train": TRAIN, "test": TEST, "validation": VALIDATION}


def write(folder: Path, kind: str, part: str) -> Json:
    """Write a stored part, no image of which is in another one, and return its keys in the card."""
    labels = np.array(STORED[part])
    images = pixels(len(labels), seed=list(STORED).index(part))
    if kind == "npz":
        np.savez(folder / f"{part}.npz", images=images, labels=labels)
        return {part: f"{part}.npz"}
    if kind == "idx":
        names = {f"{part}_images": idx(images), f"{part}_labels": idx(labels)}
        for name, content in names.items():
            (folder / name).write_bytes(content)
        return {name: name for name in names}
    for i, label in enumerate(labels):
        (folder / part / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i]).save(folder / part / CLASSES[label] / f"{i:02d}.png")
    return {part: part}


def source_card(folder: Path, kind: str, form: str) -> ModelCard:
    """Return a card of three classes whose test part is split off or stored apart, perhaps beside a validation part."""
    if kind == "sklearn-digits":
        return load_card("digits-vit")
    stored = {"split off": ["train"], "apart": ["train", "test"], "validation": ["train", "test", "validation"]}[form]
    source: Json = {"source": kind} | (SPLIT if form == "split off" else {})
    for part in stored:
        source |= write(folder, kind, part)
    return card(folder, source, CLASSES)


@pytest.fixture(
    params=[
        ("sklearn-digits", "split off"),
        *itertools.product(("idx", "npz", "folder"), ("split off", "apart", "validation")),
    ],
    ids=lambda param: " ".join(param),
)
def read(request: pytest.FixtureRequest, tmp_path: Path) -> ModelCard:
    """A card of each kind of source, in each form."""
    return source_card(tmp_path, *request.param)


def rows(*parts: data.Samples) -> list[tuple[float, ...]]:
    """Return the images of parts with their labels, sorted."""
    return sorted(
        tuple(row) for part in parts for row in torch.column_stack([part.tensor().flatten(1), part.labels]).tolist()
    )


def test_no_two_parts_share_an_image(read: ModelCard) -> None:
    """Calibration and test together are the stored test part, unless a validation part calibrates."""
    train, calibration, test = (data.load(read, part) for part in PARTS)
    stored = data.load_stored_test(read)
    assert read.data is not None
    assert rows(*((test,) if read.data.has_validation_part else (calibration, test))) == rows(stored)
    pooled = rows(train, calibration, test)
    # Of 1,797 digits and of as many random images, no two are equal.
    assert len(set(pooled)) == len(pooled)


def test_half_of_each_class_calibrates(read: ModelCard) -> None:
    """Where a test part is divided, it is divided class by class; a validation part is taken as it is."""
    calibration, test = (torch.bincount(data.load(read, part).labels) for part in ("calibration", "test"))
    assert read.data is not None
    if read.data.has_validation_part:
        assert calibration.tolist() == [1, 1, 1]
        assert test.tolist() == [5, 3, 3]
    else:
        assert (calibration - test).abs().max() <= 1
        assert 0 <= test.sum() - calibration.sum() <= 1


def test_parts_are_the_same_every_time_and_cutting_down_does_not_change_them(read: ModelCard) -> None:
    """A part with at most two images a class is some of the same part, always the same."""
    for part in PARTS:
        everything, some = data.load(read, part), data.load(read, part, max_per_class=2)
        assert rows(data.load(read, part)) == rows(everything)
        assert rows(data.load(read, part, max_per_class=2)) == rows(some)
        assert set(rows(some)) <= set(rows(everything))
        assert torch.equal(torch.bincount(some.labels), torch.bincount(everything.labels).clamp(max=2))


def test_the_shipped_digits_have_270_images_for_calibration_and_270_for_tests() -> None:
    """Half of 540 each, and `load_test` says how many are not for tests."""
    digits = load_card("digits-vit")
    test, num_calibration_images = data.load_test(digits)
    assert (len(data.load(digits, "calibration")), len(test), num_calibration_images) == (270, 270, 270)
    assert rows(test) == rows(data.load(digits, "test"))


def test_no_more_than_4000_images_calibrate(tmp_path: Path) -> None:
    """Of 9,000 test images, 4,000 calibrate, 4/9 of each class, and 5,000 are for tests."""
    labels = np.repeat([0, 1, 1], 3000)
    for part in ("train", "test"):
        np.savez(tmp_path / f"{part}.npz", images=np.zeros((9000, 4, 4), np.uint8), labels=labels)
    read = card(tmp_path, {"source": "npz", "train": "train.npz", "test": "test.npz"})
    calibration, test = (torch.bincount(data.load(read, part).labels).tolist() for part in ("calibration", "test"))
    assert sum(calibration) == MAX_CALIBRATION_IMAGES == 4000
    assert calibration in ([1333, 2667], [1334, 2666])
    assert [c + t for c, t in zip(calibration, test, strict=True)] == [3000, 6000]


@pytest.mark.parametrize("part", ["calibration", "test"])
def test_a_test_part_of_one_image_cannot_be_divided(tmp_path: Path, part: data.DataPart) -> None:
    """The message says what there is and what to add; with a validation part, one image is enough."""
    source = {"source": "npz"} | write(tmp_path, "npz", "train") | write(tmp_path, "npz", "test")
    np.savez(tmp_path / "test.npz", images=pixels(1), labels=[2])
    with pytest.raises(InputError, match=r"must have at least 2 images.*got 1; add images, or a validation") as error:
        data.load(card(tmp_path, source, CLASSES), part)
    assert_sentence(error, tmp_path / "test.npz")
    source |= write(tmp_path, "npz", "validation")
    assert len(data.load(card(tmp_path, source, CLASSES), part)) == {"calibration": 3, "test": 1}[part]


def test_a_validation_part_may_lack_classes_but_not_images(tmp_path: Path) -> None:
    """Empty or missing files are named."""
    source = {"source": "npz"} | write(tmp_path, "npz", "train") | write(tmp_path, "npz", "test")
    read = card(tmp_path, source | {"validation": "validation.npz"}, CLASSES)
    with pytest.raises(InputError, match="no such file") as error:
        data.load(read, "calibration")
    assert_sentence(error, tmp_path / "validation.npz")
    np.savez(tmp_path / "validation.npz", images=pixels(2), labels=[2, 2])
    assert data.load(read, "calibration").labels.tolist() == [2, 2]
    np.savez(tmp_path / "validation.npz", images=pixels(0), labels=np.zeros(0, np.int64))
    with pytest.raises(InputError, match="must have at least one image, got none"):
        data.load(read, "calibration")


# What is decoded


class CountedPixels:
    """Stored images that note which of them are decoded."""

    def __init__(self, pixels: Pixels, decoded: set[int]) -> None:
        self.pixels, self.decoded = pixels, decoded

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, indices: Sequence[int]) -> Iterator[tuple[Path | str, torch.Tensor]]:
        """Note the indices and yield their images."""
        self.decoded.update(indices)
        return self.pixels.read(indices)


def test_no_other_image_is_decoded_than_those_of_the_part(read: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a part reads of a stored part, no other part reads."""
    decoded: dict[tuple[str, StoredPart], set[int]] = {}
    original, user = data.sources.read, ""

    def counted(read: ModelCard, part: StoredPart) -> data.sources.StoredImages:
        stored = original(read, part)
        # Without a test part of its own, a source is read for all parts.
        return replace(stored, pixels=CountedPixels(stored.pixels, decoded.setdefault((user, part), set())))

    monkeypatch.setattr(data.sources, "read", counted)
    for user in PARTS:
        data.load(read, user, max_per_class=2)
        data.load(read, user).tensor()
    for (one, part), (other, same) in itertools.combinations(decoded, 2):
        if part == same:
            assert decoded[one, part].isdisjoint(decoded[other, same]), (one, other)
    assert {user for user, _ in decoded} == set(PARTS)
