"""Distillation data of many classes in the work folder: a run that was stopped reads what it had written."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from planner.executor.checkpoints import checkpointed_distillation_data
from planner.network.data import Jitter, Samples
from planner.network.distillation_data import DistillationData
from planner.network.lazy_logits import LazyLogits
from planner.network.vit import Shape
from tests.helpers.plain_vit import random_images, random_model

# More classes than embed dims, of one token or of two.
ONE = Shape(8, 4, 1, 40, embed_dim=8, head_dim=4, num_heads=(2,), hidden_dim=(6,))
TWO = Shape(8, 4, 1, 40, embed_dim=8, head_dim=4, num_heads=(2,), hidden_dim=(6,), distilled=True)


@pytest.mark.parametrize("shape", [ONE, TWO], ids=["one token", "distilled"])
def test_pooled_tokens_are_stored_and_read(shape: Shape, tmp_path: Path) -> None:
    """No logits are in the file, and batches from it are those of the run that wrote it, bit for bit."""
    teacher, samples, path = random_model(shape), Samples(random_images(shape, 6), torch.arange(6)), tmp_path / "data"

    def made() -> DistillationData:
        return checkpointed_distillation_data(
            path, teacher, samples, Jitter(1.0, 5.0), 0, 3, lambda done, total: reports.append(done)
        )

    reports: list[int] = []
    written = made()
    assert isinstance(written.teacher_logits, LazyLogits)
    assert set(load_file(path)) == {"moves", "pooled"}
    assert reports == [0, 1, 2, 3]
    read = made()
    assert reports == [0, 1, 2, 3]
    batches = [data.batch(torch.tensor([4, 1, 1]), torch.Generator().manual_seed(5)) for data in (written, read)]
    for of_run, of_file in zip(*(batch[:4] for batch in batches), strict=True):
        assert torch.equal(of_run, of_file)
