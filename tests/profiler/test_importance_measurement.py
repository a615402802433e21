"""Measurements of importance: resumed after a stop, refused with a reason, and small in memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from planner.errors import InputError
from planner.network.data import Samples
from planner.network.vit import Shape, VisionTransformer
from planner.profiler import gradient_importance, kl_importance
from planner.profiler.importance import EXPONENTS, ImportanceMethod, measure_importance
from tests.helpers.common import ROOT
from tests.helpers.importance import PARTS, SHAPE
from tests.helpers.plain_vit import random_model


@pytest.mark.parametrize("method", list(EXPONENTS))
def test_measuring_leaves_the_model_as_it_is(samples: Samples, method: ImportanceMethod) -> None:
    """Measuring changes no weight and leaves no gradient."""
    model = random_model(SHAPE)
    measure_importance(method, model, samples)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), random_model(SHAPE).parameters(), strict=True))
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


class Stop(KeyboardInterrupt):
    """A user's Ctrl-C."""


@pytest.mark.parametrize("method", ["thinned", "fisher", "kl"])
def test_an_interrupted_measurement_goes_on(
    samples: Samples, method: ImportanceMethod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A measurement stopped after two of three batches and resumed equals an unbroken one bit for bit."""
    monkeypatch.setattr(gradient_importance, "_MAX_BATCH_IMAGES", 2)
    monkeypatch.setattr(kl_importance, "_MAX_BATCH_IMAGES", 2)
    model, state, seen = random_model(SHAPE), tmp_path / "state.safetensors", []
    unbroken = measure_importance(method, model, samples)

    def stop_after_four(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 4:
            raise Stop(f"after {done} of {total}")

    with pytest.raises(Stop, match="after 4 of 6"):
        measure_importance(method, model, samples, stop_after_four, state)
    assert seen == [(2, 6), (4, 6)]
    resumed = measure_importance(method, model, samples, lambda done, total: seen.append((done, total)), state)
    assert seen == [(2, 6), (4, 6), (6, 6)]
    finished = measure_importance(method, model, samples, lambda done, total: seen.append((done, total)), state)
    assert len(seen) == 3
    for part in PARTS:
        assert np.array_equal(getattr(resumed, part), getattr(unbroken, part))
        assert np.array_equal(getattr(finished, part), getattr(unbroken, part))


def test_the_state_of_another_measurement_is_refused(samples: Samples, tmp_path: Path) -> None:
    """The message names what differs (weights, images, labels, method or seed) and what to do."""
    model, state = random_model(SHAPE), tmp_path / "state.safetensors"
    measure_importance("fisher", model, samples, state=state)
    others: list[tuple[str, ImportanceMethod, VisionTransformer, Samples, int]] = [
        ("weights must be", "fisher", random_model(SHAPE, seed=1), samples, 0),
        ('method must be "taylor", got "fisher"', "taylor", model, samples, 0),
        ("number of images must be 5, got 6", "fisher", model, samples.take(torch.arange(5)), 0),
        ("labels must be", "fisher", model, samples.take(torch.tensor([1, 0, 2, 3, 4, 5])), 0),
        ("seed must be 3, got 0", "fisher", model, samples, 3),
    ]
    for message, method, other, images, seed in others:
        with pytest.raises(InputError, match=f"another measurement: {message}.*; delete it to begin again"):
            measure_importance(method, other, images, state=state, seed=seed)
    state.write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"not a state of measured importance \(.*\); delete it to begin again"):
        measure_importance("fisher", model, samples, state=state)


def test_a_class_without_images_is_refused(samples: Samples) -> None:
    """Every class must have images to measure its importance on."""
    with pytest.raises(InputError, match="every class must have images to measure importance on, class 1 has none"):
        measure_importance("fisher", random_model(SHAPE), samples.take(torch.tensor([0, 1, 3])))


def test_an_image_that_is_not_finite_is_refused(samples: Samples) -> None:
    """A pixel that is not a number is refused, as it would spoil every sum."""
    samples.tensor()[4, 0, 1, 1] = torch.nan
    with pytest.raises(InputError, match="must have finite derivatives, got a loss of nan for 6 images"):
        measure_importance("fisher", random_model(SHAPE), samples)


_THOUSAND = """
import resource, torch
from planner.network.data import Samples
from planner.network.vit import Shape, VisionTransformer, initialise
from planner.profiler.grouping import group_channels
from planner.profiler.importance import measure_importance
from planner.profiler.importance_shares import normalised_shares

torch.set_num_threads(1)
model = VisionTransformer(Shape(4, 2, 1, 1000, 16, 8, (2,) * 2, (1024,) * 2))
initialise(model, torch.Generator().manual_seed(0))
samples = Samples(torch.randn(1000, 1, 4, 4), torch.arange(1000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
importance = measure_importance("thinned", model, samples)
normalised_shares(importance, group_channels(importance, 32))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_thousand_classes_need_little_memory() -> None:
    """The sums of 1,000 classes x 2 blocks x 1,024 channels take 16 MB; all together stays below 200 MB."""
    done = subprocess.run(
        [sys.executable, "-c", _THOUSAND],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 200


def test_batches_are_small_enough_for_a_large_model() -> None:
    """A batch of a ViT-Base takes about a gibibyte; a tiny model has the largest batch."""
    base = Shape(224, 16, 3, 1000, 768, 64, (12,) * 12, (3072,) * 12)
    # By hand: 197 tokens x 4 bytes x 12 blocks x (10 x 768 + 4 x 3072) = 189 MB for each image.
    assert gradient_importance.gradient_batch_size(base) == 5
    assert gradient_importance.gradient_batch_size(SHAPE) == 128
