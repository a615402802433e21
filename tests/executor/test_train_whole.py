"""The shipped model can be trained again from its card."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress, TaskID
from torch.nn import functional as F

from planner.errors import InputError
from planner.executor.train_whole import STATE, train_whole
from planner.network import data
from planner.network.checkpoint import find_card, load_card, load_model, whole_shape
from planner.network.training import Schedule
from planner.network.vit import VisionTransformer, initialise
from planner.schema import ModelCard, read_document


def digits_card(folder: Path, **changes: object) -> Path:
    """Write the digits ViT's card without its weights and with some keys changed."""
    card = json.loads(find_card("digits-vit").read_text()) | {"accuracy": None}
    del card["weights"], card["weights_sha256"]
    path = folder / "card.json"
    path.write_text(json.dumps(card | changes))
    return path


class StoppedError(Exception):
    """Raised where a run is to stop."""


class Stopping(Progress):
    """A progress callback that stops a run after its start."""

    def update(self, task_id: TaskID, **changes: Any) -> None:
        raise StoppedError


def test_training_is_what_the_card_says(tmp_path: Path) -> None:
    """Two epochs with a stop between give, bit for bit, the weights of a training written out step by step.

    The card says what came out.
    """
    training = json.loads(find_card("digits-vit").read_text())["training"] | {"epochs": 2, "batch_size": 256}
    path = digits_card(tmp_path, training=training)
    with pytest.raises(StoppedError):
        train_whole(path, Stopping(disable=True))
    assert {file.name for file in tmp_path.iterdir()} == {"card.json", STATE}
    trained = train_whole(path, Progress(disable=True))
    assert {file.name for file in tmp_path.iterdir()} == {"card.json", "weights.safetensors"}
    card, model = load_model(str(path))
    assert card == trained == read_document(path, ModelCard)
    assert trained.weights_sha256 == hashlib.sha256((tmp_path / "weights.safetensors").read_bytes()).hexdigest()

    expected = VisionTransformer(whole_shape(card))
    initialise(expected, torch.Generator().manual_seed(0))
    train = data.load(card, "train")
    images, schedule = train.tensor(), Schedule(epochs=2, batch_size=256, learning_rate=0.003, weight_decay=0.1)
    optimizer = torch.optim.AdamW(expected.parameters(), weight_decay=0.1, fused=True)
    batches = -(-len(train) // 256)
    jitter = data.Jitter(0.3, 5.0)
    expected.train()
    for epoch in range(2):
        generator = torch.Generator().manual_seed(epoch)
        for i, batch in enumerate(torch.randperm(len(train), generator=generator).split(256)):
            optimizer.param_groups[0]["lr"] = schedule.rate(epoch * batches + i, 2 * batches)
            logits = expected(jitter(images[batch], generator))
            optimizer.zero_grad()
            F.cross_entropy(logits, train.labels[batch], label_smoothing=0.1).backward()
            optimizer.step()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name

    assert trained.accuracy is not None
    # The accuracy of the card is that on the whole test part, images for calibration included.
    test = data.load_stored_test(card)
    assert len(test) == 540
    for samples, stated in ((train, trained.accuracy["train"]), (test, trained.accuracy["test"])):
        with torch.inference_mode():
            right = (model(samples.tensor()).argmax(1) == samples.labels).float().mean().item()
        assert stated == pytest.approx(right, abs=1e-4)


@pytest.mark.slow
def test_training_again_gives_the_accuracy_of_the_card(tmp_path: Path) -> None:
    """The trained accuracy is at least 97 % and within half a point of the card's."""
    shipped = load_card("digits-vit").accuracy
    trained = train_whole(digits_card(tmp_path), Progress(disable=True)).accuracy
    assert shipped is not None
    assert trained is not None
    assert trained["test"] >= 0.97
    assert trained["test"] == pytest.approx(shipped["test"], abs=0.005)


def test_a_card_that_does_not_say_how_to_train_is_refused(tmp_path: Path) -> None:
    """A card without training or data is refused, and nothing is written."""
    path = digits_card(tmp_path, training=None)
    with pytest.raises(InputError, match=r"card\.json: must say under `training` how the weights are made"):
        train_whole(path, Progress(disable=True))
    path = digits_card(tmp_path, data=None, preprocessing=None)
    with pytest.raises(InputError, match="'digits-vit' has no data"):
        train_whole(path, Progress(disable=True))
    assert list(tmp_path.iterdir()) == [path]
