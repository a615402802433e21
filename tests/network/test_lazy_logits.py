"""Logits that are made anew from pooled tokens: those of the network itself, in every way that data are cut."""

from dataclasses import replace

import pytest
import torch

from planner.network.data import Jitter, Samples
from planner.network.distillation_data import make_distillation_data, split_validation
from planner.network.lazy_logits import LazyLogits, saves_memory
from planner.network.recipes.subset_teachers import taught_own_classes
from planner.network.vit import Shape
from tests.helpers.plain_vit import random_images, random_model

# More classes than pooled tokens have values.
MANY = Shape(8, 4, 1, 40, embed_dim=8, head_dim=4, num_heads=(2, 1), hidden_dim=(6, 5))
DISTILLED = replace(MANY, distilled=True)
IMAGES = random_images(MANY, 12)
LABELS = torch.arange(12) % 4


def logits_of(shape: Shape, seed: int) -> torch.Tensor:
    """Logits of all images."""
    with torch.no_grad():
        logits: torch.Tensor = random_model(shape, seed)(IMAGES)
    return logits


@pytest.mark.parametrize("shape", [MANY, DISTILLED], ids=["one token", "distilled"])
def test_batches_have_the_logits_of_the_network(shape: Shape) -> None:
    """Of all images, of those that were taken, and of an epoch's validation images."""
    teacher = random_model(shape, 1)
    data = make_distillation_data(teacher, Samples(IMAGES, LABELS), Jitter(0, 0), 0)
    assert isinstance(data.teacher_logits, LazyLogits)
    expected = logits_of(shape, 1)
    for part in (data, data.take(torch.tensor([5, 2, 7])), *split_validation(data, share=0.4)):
        batch = part.batch(torch.arange(len(part)).flip(0), torch.Generator())
        with torch.no_grad():
            torch.testing.assert_close(batch.teacher_logits, teacher(batch.inputs), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(batch.teacher_features, teacher.features(batch.inputs), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(data.teacher_logits[torch.zeros(12).long(), torch.arange(12)], expected)


def test_each_image_has_the_head_of_its_teacher() -> None:
    """Own classes are taught by the second, then others by a third; the first teaches the rest."""
    data = make_distillation_data(random_model(MANY, 1), Samples(IMAGES, LABELS), Jitter(0, 0), 0)
    taught = taught_own_classes(data, (1, 3), random_model(MANY, 2))
    taught = taught_own_classes(taught, (2,), random_model(MANY, 3))
    found = taught.batch(torch.arange(12), torch.Generator()).teacher_logits
    for label, seed in enumerate((1, 2, 3, 2)):
        of_label = label == LABELS
        torch.testing.assert_close(found[of_label], logits_of(MANY, seed)[of_label], rtol=1e-4, atol=1e-5)


def test_logits_are_stored_where_they_are_smaller() -> None:
    """Eight classes of eight values each are stored, nine are made anew; two tokens have sixteen values."""
    for classes, tokens, expected in ((8, 1, False), (9, 1, True), (16, 2, False), (17, 2, True)):
        shape = replace(MANY, num_classes=classes, distilled=tokens == 2)
        assert saves_memory(random_model(shape)) == expected
