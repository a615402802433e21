"""Checkpoints that cannot be imported: refused in one sentence, and never executed."""

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from planner.errors import InputError
from tests.helpers import foreign_names
from tests.helpers.checkpoints import PLAIN, import_with, imported
from tests.helpers.plain_vit import random_model


@pytest.mark.parametrize(
    ("naming", "change", "message"),
    [
        ("huggingface", {"vit.layernorm.bias": None}, "tensor 'vit.layernorm.bias' is missing"),
        (
            "huggingface",
            {"vit.encoder.layer.1.attention.attention.key.bias": torch.ones(11)},
            r"query\.bias' with 'vit.*key\.bias' with 'vit.*value\.bias' must have shape \(36,\), got \(35,\)",
        ),
        ("huggingface", {"vit.pooler.dense.bias": torch.ones(12)}, "'vit.pooler.dense.bias' belongs to no part"),
        ("torchvision", {"encoder.ln.bias": torch.full((12,), torch.nan)}, "'encoder.ln.bias' must hold finite"),
        ("torchvision", {"heads.head.bias": torch.full((5,), -torch.inf)}, "'heads.head.bias' must hold finite"),
        ("torchvision", {"conv_proj.weight": torch.ones(12, 3, 2)}, r"'conv_proj.weight' must have 4 dimensions"),
        ("timm", {"blocks.1.norm1.weight": None}, "tensor 'blocks.1.* belongs to no part"),
        ("timm", {"blocks.0.norm1.weight": None}, "tensor 'blocks.0.norm1.weight' is missing"),
        ("timm", {"blocks.1.mlp.fc1.bias": torch.ones(8)}, r"'blocks.1.mlp.fc1.bias' must have shape \(7,\)"),
        ("timm", {"head.bias": torch.ones(5, dtype=torch.int64)}, "'head.bias' must hold floating-point.*int64"),
        ("timm", {"pos_embed": torch.ones(1, 8, 12)}, r"'pos_embed' must have 1 \+ a square of tokens, got 8"),
        ("timm", {"pos_embed": torch.ones(1, 1, 12)}, r"'pos_embed' must have 1 \+ a square of tokens, got 1"),
        ("timm", {"dist_token": torch.ones(1, 1, 12)}, "has a distillation token, but no head layer .*'head_dist"),
        ("timm", {"norm.weight": torch.full((12,), 3e38)}, "must answer an image with finite logits"),
        ("timm", {"cls_token": None}, r"'pos_embed' must have 0 \+ a square of tokens, got 10"),
        ("timm", {"pos_embed": None}, "names must be those of timm, DeiT.*as `names`"),
        ("timm", {"epoch": 3}, "must map names to tensors, got int at 'epoch'"),
    ],
)
def test_another_network_is_refused(tmp_path: Path, naming: str, change: dict[str, Any], message: str) -> None:
    """Tensors that are missing, superfluous, misshapen or not finite are named in one sentence."""
    state = getattr(foreign_names, naming)(random_model(PLAIN)) | change
    state = {name: value for name, value in state.items() if value is not None}
    with pytest.raises(InputError, match=message) as error:
        imported(tmp_path, state)
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 'a.pth'}: ")
    assert "\n" not in text
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("embed_dim", "head_dim", "heads", "message"),
    [
        (12, 3, None, r"give it as `num_heads`\.$"),
        (128, 64, None, "with the usual head dim of 64 it would be `num_heads=2`"),
        (12, 3, 5, "`num_heads` must divide 12, the width of the queries, got 5"),
        (12, 3, 0, "`num_heads` must divide 12.*got 0"),
    ],
)
def test_the_number_of_heads_is_asked_for(
    tmp_path: Path, embed_dim: int, head_dim: int, heads: int | None, message: str
) -> None:
    """The number of heads is never guessed; where the usual head dim fits, it is suggested."""
    shape = dataclasses.replace(PLAIN, embed_dim=embed_dim, head_dim=head_dim, num_heads=(embed_dim // head_dim,) * 2)
    with pytest.raises(InputError, match=message):
        imported(tmp_path, random_model(shape).state_dict(), heads)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["a", "b"]}, "has 5 classes, got names for 2"),
        ({"classes": list("abcda")}, "names must differ, 'a' is given twice"),
        ({"classes": ["a", "b", "", "d", "e"]}, "classes: 2: .*at least 1 character"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps: .*greater than 0, got 0.0"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps: .*got nan"),
    ],
)
def test_options_that_do_not_go_with_the_weights_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    """A wrong number of names, a repeated name and a bad epsilon are refused."""
    with pytest.raises(InputError, match=message):
        imported(tmp_path, random_model(PLAIN).state_dict(), **options)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    """An earlier model is not overwritten."""
    imported(tmp_path, random_model(PLAIN).state_dict())
    before = (tmp_path / "mine" / "card.json").read_bytes()
    with pytest.raises(InputError, match="mine: must be a new or an empty folder"):
        imported(tmp_path, random_model(PLAIN, seed=1).state_dict())
    assert (tmp_path / "mine" / "card.json").read_bytes() == before


class Bomb:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_a_pickle_bomb_is_refused_and_not_executed(tmp_path: Path, suffix: str, old_format: bool) -> None:
    """A checkpoint that would run code when unpickled is refused, and nothing runs."""
    trace, path = tmp_path / "executed", tmp_path / f"bomb{suffix}"
    content = random_model(PLAIN).state_dict() | {"x": Bomb(trace)}
    if old_format:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match="must be a checkpoint of tensors and nothing else") as error:
        import_with(path, tmp_path / "mine", 4)
    assert "\n" not in str(error.value)
    assert not trace.exists()
    # The bomb is live: unpickling it outright would have left its trace.
    pickle.loads(pickle.dumps(Bomb(trace)))
    assert trace.exists()


def test_an_array_of_objects_is_refused_and_not_executed(tmp_path: Path) -> None:
    """An .npz that would have to be unpickled is refused, and nothing runs."""
    trace, path = tmp_path / "executed", tmp_path / "bomb.npz"
    np.savez(path, cls_token=np.array([Bomb(trace)], dtype=object))
    with pytest.raises(InputError, match=r"must be an \.npz file of plain arrays"):
        import_with(path, tmp_path / "mine", 4)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.pth", b"", "must be a checkpoint of tensors"),
        ("a.pth", b"PK\x03\x04 no archive", "must be a checkpoint of tensors"),
        ("a.npz", b"no archive", r"must be an \.npz file"),
        ("a.npz", b"", r"must be an \.npz file"),
        ("a.safetensors", b"", "must be a safetensors file"),
        ("a.h5", b"", r"must be a \.safetensors, \.pth, \.pt, \.bin, \.ckpt, \.tar, \.npz file, got \.h5"),
        ("a", b"", "got no suffix"),
    ],
)
def test_a_file_of_no_known_format_is_refused(tmp_path: Path, file: str, content: bytes, message: str) -> None:
    """Empty, damaged and unknown files are named, whatever their suffix."""
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        import_with(tmp_path / file, tmp_path / "mine", 4)
    assert "\n" not in str(error.value)


def test_lone_objects_are_refused(tmp_path: Path) -> None:
    """A file with a single tensor or array, without names, is refused."""
    torch.save(torch.ones(3), tmp_path / "a.pt")
    with pytest.raises(InputError, match="must map names to tensors, got Tensor"):
        import_with(tmp_path / "a.pt", tmp_path / "mine", 4)
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(InputError, match=r"must be an \.npz file of plain arrays"):
        import_with(tmp_path / "a.npz", tmp_path / "mine", 4)
