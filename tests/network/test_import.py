"""Imported checkpoints: the same logits as the source, under every naming scheme."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from planner.errors import InputError
from planner.network.checkpoint import load_model
from planner.network.vit import Shape, VisionTransformer
from tests.helpers import foreign_names
from tests.helpers.checkpoints import DISTILLED, PLAIN, assert_same_logits, import_with, write
from tests.helpers.plain_vit import State, attention_of, ones, plain_features, plain_logits, random_images, random_model


@pytest.mark.parametrize(
    ("naming", "shape", "file", "wrapper"),
    [
        ("timm", PLAIN, "a.safetensors", None),
        ("timm", PLAIN, "a.pt", "state_dict"),
        ("timm", DISTILLED, "a.pth", "model"),
        ("timm", DISTILLED, "a.npz", None),
        ("huggingface", PLAIN, "a.bin", None),
        ("huggingface", DISTILLED, "a.safetensors", None),
        ("torchvision", PLAIN, "a.pth", None),
        ("old_torchvision", PLAIN, "a.npz", None),
    ],
)
def test_an_imported_model_gives_the_same_logits(
    tmp_path: Path, naming: str, shape: Shape, file: str, wrapper: str | None
) -> None:
    """For every naming scheme, file format and wrapper, the model read back equals the one written."""
    if naming == "huggingface":
        shape = dataclasses.replace(shape, layer_norm_eps=1e-12)
    model = random_model(shape)
    source = write(tmp_path / file, getattr(foreign_names, naming)(model), wrapper)
    import_with(source, tmp_path / "mine", num_heads=4)
    card, loaded = load_model(str(tmp_path / "mine" / "card.json"))
    assert loaded.shape == shape
    assert card.model == "mine"
    assert card.classes == ("0", "1", "2", "3", "4")
    assert card.origin is not None
    assert card.origin.file == file
    assert_same_logits(model, loaded)


@pytest.mark.parametrize("eps", [1e-6, 1e-2])
def test_a_distilled_model_is_plain_arithmetic(eps: float) -> None:
    """Logits are the mean of both head layers on their own tokens, features the mean of both tokens."""
    model = random_model(dataclasses.replace(DISTILLED, layer_norm_eps=eps)).double()
    images, masks = random_images(DISTILLED, 3).double(), ones(DISTILLED)
    torch.testing.assert_close(model(images), plain_logits(model, images, *masks), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(model.features(images), plain_features(model, images, *masks), rtol=1e-9, atol=1e-10)


def test_torchvisions_attention_is_ours() -> None:
    """torch's own MultiheadAttention, which torchvision uses, gives the same output for the same tensors."""
    model = random_model(PLAIN)
    ours, theirs = attention_of(model, 0), nn.MultiheadAttention(12, 4, batch_first=True).eval()
    names = {"in_proj_weight": ours.qkv.weight, "in_proj_bias": ours.qkv.bias}
    names |= {"out_proj.weight": ours.proj.weight, "out_proj.bias": ours.proj.bias}
    theirs.load_state_dict(names)
    x = torch.randn(2, 10, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    """Weights of other float types are converted to float32."""
    state = {name: tensor.to(dtype) for name, tensor in random_model(PLAIN).state_dict().items()}
    import_with(write(tmp_path / "a.safetensors", state), tmp_path / "mine", num_heads=4)
    weights = load_file(tmp_path / "mine" / "weights.safetensors")
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    assert all(torch.equal(weights[name], tensor.float()) for name, tensor in state.items())


# Cards that keep a checkpoint's own names


def card_of(tmp_path: Path, model: VisionTransformer, file: Path, names: object) -> str:
    """Write a card beside a checkpoint in the card's folder, its hash included; return the card's path."""
    s = model.shape
    card = {
        "model": "mine",
        "description": "",
        "architecture": {
            "image_size": s.image_size,
            "patch_size": s.patch_size,
            "in_channels": s.in_channels,
            "embed_dim": s.embed_dim,
            "depth": s.depth,
            "num_heads": s.num_heads[0],
            "head_dim": s.head_dim,
            "hidden_dim": s.hidden_dim[0],
            "distilled": s.distilled,
        },
        "classes": s.num_classes,
        "weights": file.name,
        "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "parameter_names": names,
    }
    path = tmp_path / "card.json"
    path.write_text(json.dumps(card))
    return str(path)


@pytest.mark.parametrize(
    ("naming", "names", "shape"),
    [
        ("timm", "timm", DISTILLED),
        ("huggingface", "huggingface", PLAIN),
        ("huggingface", "huggingface", DISTILLED),
        ("torchvision", "torchvision", PLAIN),
        ("old_torchvision", "torchvision", PLAIN),
    ],
)
def test_a_card_may_name_the_naming_scheme_of_its_file(tmp_path: Path, naming: str, names: str, shape: Shape) -> None:
    """A checkpoint is read as it is when its card names its naming scheme."""
    model = random_model(shape)
    file = write(tmp_path / "a.pth", getattr(foreign_names, naming)(model))
    assert_same_logits(model, load_model(card_of(tmp_path, model, file, names))[1])


def own_names(model: VisionTransformer) -> tuple[State, dict[str, str | list[str]]]:
    """Return tensors under other names, q, k and v apart, and the name map of a card for them."""
    state: State = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("attn.qkv.weight"):
            l = name.split(".")[1]
            state |= dict(zip((f"enc.{l}.q.w", f"enc.{l}.k.w", f"enc.{l}.v.w"), tensor.chunk(3), strict=True))
        elif name.endswith("attn.qkv.bias"):
            state[f"enc.{name.split('.')[1]}.qkv.b"] = tensor
        else:
            state["pos" if name == "pos_embed" else name] = tensor
    return state, {
        "pos_embed": "pos",
        "blocks.{l}.attn.qkv.weight": ["enc.{l}.q.w", "enc.{l}.k.w", "enc.{l}.v.w"],
        "blocks.{l}.attn.qkv.bias": "enc.{l}.qkv.b",
    }


def test_a_card_may_map_other_names(tmp_path: Path) -> None:
    """Mapped names are found in one tensor or in three; the rest keeps the usual names."""
    model = random_model(PLAIN)
    state, names = own_names(model)
    file = write(tmp_path / "a.pth", {name: tensor.clone() for name, tensor in state.items()})
    assert_same_logits(model, load_model(card_of(tmp_path, model, file, names))[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos_embd": "pos"}, r"'pos_embd' is no parameter of the network; did you mean 'pos_embed'\?"),
        ({"blocks.0.norm1.weight": "x"}, r"'blocks\.0\.norm1\.weight' is no parameter"),
        ({"head.weight": ["a", "b", "c"]}, "'head.weight' must have one name.*only qkv has three"),
        ({"head.weight": "head.bias"}, "'head.bias' must be one parameter, got 'head.weight' and 'head.bias'"),
        ({"blocks.{l}.norm1.weight": "n"}, r"'n' must be one parameter, got 'blocks\.0.*' and 'blocks\.1"),
        ({"blocks.{l}.attn.qkv.weight": ["q", "q", "v"]}, "'q' must be one parameter"),
        ({"head.weight": 3}, r"parameter_names: head\.weight must be a valid string"),
        ("tim", "parameter_names must be 'timm', 'huggingface' or 'torchvision'"),
    ],
)
def test_a_wrong_name_map_is_refused(tmp_path: Path, change: object, message: str) -> None:
    """Unknown parameters, duplicates and a wrong number of names are each named."""
    model = random_model(PLAIN)
    file = write(tmp_path / "a.pth", model.state_dict())
    with pytest.raises(InputError, match=message) as error:
        load_model(card_of(tmp_path, model, file, change))
    assert "\n" not in str(error.value)


# What is refused


# The command
