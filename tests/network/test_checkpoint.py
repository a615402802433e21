"""Checkpoints are read strictly, and refused in one sentence."""

import hashlib
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from planner.errors import InputError
from planner.network.checkpoint import find_card, load_model, loaded_module
from planner.network.vit import Shape, VisionTransformer
from planner.schema.base import write_bytes
from tests.helpers.plain_vit import State, random_model
from tests.helpers.refusals import assert_sentence

SHAPE = Shape(4, 2, 2, 3, embed_dim=8, head_dim=4, num_heads=(2, 0, 1), hidden_dim=(5, 3, 0))

make = partial(VisionTransformer, SHAPE)

# Writes a state dict; returns the path and the hash of the file.
WriteCheckpoint = Callable[[State], tuple[Path, str]]


@pytest.fixture
def checkpoint(tmp_path: Path) -> WriteCheckpoint:
    """Function that writes tensors to a file and returns its path and its hash."""

    def write(tensors: State) -> tuple[Path, str]:
        path = tmp_path / "weights.safetensors"
        save_file(tensors, path)
        return path, hashlib.sha256(path.read_bytes()).hexdigest()

    return write


def test_weights_are_read_back(checkpoint: WriteCheckpoint) -> None:
    """The loaded weights are those written, and the model is in eval mode."""
    source = random_model(SHAPE)
    path, sha256 = checkpoint(source.state_dict())
    target = loaded_module(path, make, sha256)
    assert not target.training
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in target.state_dict().items())


def without(state: State, name: str) -> State:
    """Return a state without a tensor."""
    return {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "blocks.0.attn.proj.bias"), "tensor 'blocks.0.attn.proj.bias' is missing"),
        (lambda s: s | {"head.weigth": torch.ones(1)}, "tensor 'head.weigth' belongs to no part.*'head.weight'"),
        (lambda s: s | {"zzz": torch.ones(1)}, "tensor 'zzz' belongs to no part of the network"),
        (
            lambda s: s | {"head.weight": torch.ones(4, 8)},
            r"tensor 'head.weight' must have shape \(3, 8\), got \(4, 8\)",
        ),
        (lambda s: s | {"norm.bias": torch.full((8,), math.nan)}, "tensor 'norm.bias' must hold finite numbers"),
        (lambda s: s | {"pos_embed": torch.full((1, 5, 8), math.inf)}, "tensor 'pos_embed' must hold finite numbers"),
    ],
    ids=["missing", "extra, nearly known", "extra", "another shape", "NaN", "infinity"],
)
def test_weights_of_another_network_are_refused(
    checkpoint: WriteCheckpoint, change: Callable[[State], State], message: str
) -> None:
    """A tensor that is missing, left over, of another shape or not finite is named in one sentence."""
    path, sha256 = checkpoint(change(random_model(SHAPE).state_dict()))
    with pytest.raises(InputError, match=message) as error:
        loaded_module(path, make, sha256)
    assert_sentence(error, path)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(checkpoint: WriteCheckpoint, keep: int) -> None:
    """A file that ends too early is named, even where its hash is the expected one."""
    path, _ = checkpoint(random_model(SHAPE).state_dict())
    content = path.read_bytes()[:keep]
    path.write_bytes(content)
    with pytest.raises(InputError, match="must be a safetensors file") as error:
        loaded_module(path, make, hashlib.sha256(content).hexdigest())
    assert_sentence(error, path)


def test_a_changed_file_is_refused(checkpoint: WriteCheckpoint) -> None:
    """One changed byte changes the hash, and both hashes are shown."""
    path, sha256 = checkpoint(random_model(SHAPE).state_dict())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"SHA-256 must be {sha256[:12]}.*got .*changed") as error:
        loaded_module(path, make, sha256)
    assert_sentence(error, path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A file that does not exist is named."""
    with pytest.raises(InputError, match=r"no such file\.") as error:
        loaded_module(tmp_path / "none.safetensors", make, "")
    assert_sentence(error, tmp_path / "none.safetensors")


def test_a_network_takes_no_memory_before_its_file_holds_it(checkpoint: WriteCheckpoint) -> None:
    """A shape of 10^15 parameters beside a small file is refused by the file, not by the system."""
    path, sha256 = checkpoint(random_model(SHAPE).state_dict())
    huge = replace(SHAPE, embed_dim=65_536, num_heads=(4096,) * 900, hidden_dim=(2**20,) * 900)
    with pytest.raises(InputError, match=r"tensor 'cls_token' must have shape \(1, 1, 65536\), got \(1, 1, 8\)"):
        loaded_module(path, lambda: VisionTransformer(huge), sha256)


def test_a_card_is_read_by_its_path(tmp_path: Path) -> None:
    """A card beside its weights is a model in any folder; weights with another hash are refused."""
    folder = shutil.copytree(find_card("digits-vit").parent, tmp_path / "mine")
    card, model = load_model(str(folder / "card.json"))
    assert model.shape.embed_dim == card.architecture.embed_dim
    assert card.weights is not None
    weights = folder / card.weights
    write_bytes(weights, save({name: tensor * 2 for name, tensor in load_file(weights).items()}))
    with pytest.raises(InputError, match=r"weights\.safetensors: SHA-256 must be"):
        load_model(str(folder / "card.json"))


def test_an_unknown_model_is_refused_with_the_nearest() -> None:
    """The message on a misspelled model lists the known names and suggests the nearest."""
    with pytest.raises(InputError, match=r"one of .*digits-vit.*got 'digit-vit'; did you mean 'digits-vit'\?"):
        load_model("digit-vit")


def test_an_unknown_model_is_refused_in_a_sentence() -> None:
    """Without a near name, the message ends with a full stop."""
    with pytest.raises(InputError, match=r"got 'xyz'\.$"):
        load_model("xyz")
