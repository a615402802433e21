"""Checkpoints as trainings write them: the same logits as the network that was written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from planner.errors import InputError
from tests.helpers.checkpoints import PLAIN, assert_logits_close, expected_logits, import_with, imported_logits
from tests.helpers.plain_vit import State, random_images, random_model

Values = dict[str, Any]


def around(prefix: str) -> Callable[[State], Values]:
    """Return tensors whose names begin with that of a module around the network."""
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


def lightning(state: State) -> Values:
    """Return a checkpoint of PyTorch Lightning."""
    return {
        "epoch": 3,
        "state_dict": {f"model.{n}": t for n, t in state.items()},
        "optimizer_states": [{"state": {}}],
        "hyper_parameters": {"lr": 1e-3},
    }


TRAININGS: dict[str, Callable[[State], Values]] = {
    "DistributedDataParallel": around("module."),
    "torch.compile": around("_orig_mod."),
    "both": around("module._orig_mod."),
    "PEFT, merged": around("base_model.model."),
    "Lightning": lightning,
    "DeiT": lambda state: {"model": state, "optimizer": {"state": {}}, "epoch": 3},
    "nested": lambda state: {"checkpoint": 1, "model": {"state_dict": state}},
    "counters": lambda state: state | {"total_ops": torch.zeros(1), "blocks.0.total_params": torch.ones(1).long()},
}


@pytest.mark.parametrize("file", ["a.pth", "a.ckpt", "a.pth.tar"])
@pytest.mark.parametrize("wrap", TRAININGS.values(), ids=TRAININGS)
def test_checkpoints_of_trainings_load_exactly(tmp_path: Path, wrap: Callable[[State], Values], file: str) -> None:
    """What stands around and beside the tensors changes no logit."""
    model, images = random_model(PLAIN), random_images(PLAIN, 3)
    torch.save(wrap(model.state_dict()), tmp_path / file)
    assert_logits_close(imported_logits(tmp_path, tmp_path / file, images)[1], expected_logits(model, images))


@pytest.mark.parametrize(("ema", "seed"), [(None, 1), (True, 1), (False, 0)])
@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema"])
def test_the_moving_average_is_taken_unless_told_otherwise(
    tmp_path: Path, key: str, ema: bool | None, seed: int
) -> None:
    """Of two copies, the card names the one that was taken and the one that was not."""
    models = [random_model(PLAIN, seed) for seed in (0, 1)]
    trained, averaged = (model.state_dict() for model in models)
    torch.save({"state_dict": trained, key: averaged, "epoch": 3}, tmp_path / "a.pth")
    images = random_images(PLAIN, 3)
    card, logits = imported_logits(tmp_path, tmp_path / "a.pth", images, ema=ema)
    assert_logits_close(logits, expected_logits(models[seed], images))
    taken, left = (key, "state_dict") if seed else ("state_dict", key)
    assert f"The tensors are those of '{taken}'; those of '{left}' were left." in card.description


def test_a_moving_average_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """What was asked for must be there."""
    torch.save({"state_dict": random_model(PLAIN).state_dict()}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"must hold a moving average of the weights for `ema`, got none"):
        import_with(tmp_path / "a.pth", tmp_path / "mine", 4, ema=True)


@pytest.mark.parametrize("ema", [None, True])
def test_an_average_alone_is_taken_and_said(tmp_path: Path, ema: bool | None) -> None:
    """Of a checkpoint with nothing but the average, weights as trained cannot be had."""
    model, images = random_model(PLAIN), random_images(PLAIN, 3)
    torch.save({"model_ema": model.state_dict()}, tmp_path / "a.pth")
    card, logits = imported_logits(tmp_path, tmp_path / "a.pth", images, ema=ema)
    assert_logits_close(logits, expected_logits(model, images))
    assert "The tensors are those of 'model_ema'." in card.description
    with pytest.raises(InputError, match="must hold the weights as trained, got their moving average alone"):
        import_with(tmp_path / "a.pth", tmp_path / "again", 4, ema=False)


def test_shards_load_exactly(tmp_path: Path) -> None:
    """Tensors in several files beside an index are those of one network."""
    model, images = random_model(PLAIN), random_images(PLAIN, 3)
    state, files = model.state_dict(), ("one.safetensors", "two.safetensors")
    weight_map = {name: files[i % 2] for i, name in enumerate(state)}
    for file in files:
        save_file({name: state[name] for name in state if weight_map[name] == file}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert_logits_close(imported_logits(tmp_path, index, images)[1], expected_logits(model, images))
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(InputError, match=r"two\.safetensors: no such file\."):
        import_with(index, tmp_path / "again", 4)
    for wrong in ("{", "[]", '{"weight_map": {"a": "../one.safetensors"}}'):
        index.write_text(wrong)
        with pytest.raises(InputError, match="weight_map"):
            import_with(index, tmp_path / "again", 4)
