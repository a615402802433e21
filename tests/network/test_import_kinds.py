"""Checkpoints as libraries write them: the same logits as the network that was written."""

import argparse
import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from planner.errors import InputError
from planner.network.import_settings import read_activation, read_names
from planner.network.vit import VisionTransformer
from planner.schema.architecture import Activation
from tests.helpers import foreign_names
from tests.helpers.checkpoints import PLAIN, assert_logits_close, expected_logits, import_with, imported_logits
from tests.helpers.plain_vit import State, random_images, random_model

Values = dict[str, Any]


# As libraries write them


def zeroed(model: VisionTransformer, ends: str, tokens: slice = slice(None)) -> VisionTransformer:
    """Return the network with parameters of this ending at zero; of positions only those of some tokens."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(ends):
                (p[:, tokens] if name == "pos_embed" else p).zero_()
    return model


def without_qkv_bias() -> tuple[VisionTransformer, State]:
    """timm with `qkv_bias=False`."""
    model = zeroed(random_model(PLAIN), "qkv.bias")
    return model, {n: t for n, t in model.state_dict().items() if not n.endswith("qkv.bias")}


def without_prefix_positions() -> tuple[VisionTransformer, State]:
    """timm with `no_embed_class=True`."""
    model = zeroed(random_model(PLAIN), "pos_embed", slice(0, 1))
    return model, model.state_dict() | {"pos_embed": model.pos_embed[:, 1:].detach()}


def without_register_positions() -> tuple[VisionTransformer, State]:
    """DINOv2 with registers, which get no positions."""
    model = zeroed(random_model(dataclasses.replace(PLAIN, num_registers=2)), "pos_embed", slice(1, 3))
    positions = torch.cat([model.pos_embed[:, :1], model.pos_embed[:, 3:]], dim=1).detach()
    return model, model.state_dict() | {"pos_embed": positions}


def registers() -> tuple[VisionTransformer, State]:
    """timm with `reg_tokens`."""
    model = random_model(dataclasses.replace(PLAIN, num_registers=4))
    return model, model.state_dict()


def mean_with_norm_behind() -> tuple[VisionTransformer, State]:
    """timm with `global_pool="avg"`: the last norm is called fc_norm."""
    model = random_model(dataclasses.replace(PLAIN, pooling="mean", norm_after_pooling=True))
    return model, {
        n.replace("norm.", "fc_norm.") if n.startswith("norm.") else n: t for n, t in model.state_dict().items()
    }


def mean_without_class_token() -> tuple[VisionTransformer, State]:
    """timm with `class_token=False`, `fc_norm=False`."""
    model = random_model(dataclasses.replace(PLAIN, pooling="mean", class_token=False))
    return model, model.state_dict()


def separate_qkv() -> tuple[VisionTransformer, State]:
    """Files made from timm's, with three layers in place of one."""
    model = random_model(PLAIN)
    state: State = {}
    for name, tensor in model.state_dict().items():
        if ".qkv." in name:
            state |= {name.replace("qkv", key): part.clone() for key, part in zip("qkv", tensor.chunk(3), strict=True)}
        else:
            state[name] = tensor
    return model, state


def torchvision_with_own_head(head: str) -> Callable[[], tuple[VisionTransformer, State]]:
    """Torchvision with `model.heads` replaced by a layer, or by several with the layer at a place."""

    def make() -> tuple[VisionTransformer, State]:
        model = random_model(PLAIN)
        return model, {n.replace("heads.head", head): t for n, t in foreign_names.torchvision(model).items()}

    return make


def deit_with_one_head_layer() -> tuple[VisionTransformer, State]:
    """DeiTForImageClassification, whose distillation token is never read: as a register token."""
    model = random_model(dataclasses.replace(PLAIN, num_registers=1, layer_norm_eps=1e-12))
    state = foreign_names.huggingface_with(model, "deit", {"reg_token": "deit.embeddings.distillation_token"})
    return model, state


def transformers_5() -> tuple[VisionTransformer, State]:
    """Transformers from version 5 on."""
    model = random_model(dataclasses.replace(PLAIN, layer_norm_eps=1e-12))
    return model, foreign_names.huggingface_5(model)


def norm_before_blocks() -> tuple[VisionTransformer, State]:
    """timm's ViTs of CLIP, with a linear head: a norm before the first block, no bias of the patch embedding."""
    model = zeroed(random_model(dataclasses.replace(PLAIN, norm_before_blocks=True)), "patch_embed.proj.bias")
    return model, {n: t for n, t in model.state_dict().items() if n != "patch_embed.proj.bias"}


def with_mask_token() -> tuple[VisionTransformer, State]:
    """A token of pretraining, which no answer depends on."""
    model = random_model(PLAIN)
    return model, model.state_dict() | {"mask_token": torch.ones(1, 1, 12)}


KINDS = {
    "no qkv bias": without_qkv_bias,
    "no_embed_class": without_prefix_positions,
    "registers": registers,
    "registers without positions": without_register_positions,
    "fc_norm": mean_with_norm_behind,
    "no class token": mean_without_class_token,
    "separate q, k, v": separate_qkv,
    "torchvision, heads": torchvision_with_own_head("heads"),
    "torchvision, heads.1": torchvision_with_own_head("heads.1"),
    "DeiT with one head layer": deit_with_one_head_layer,
    "transformers 5": transformers_5,
    "norm before blocks": norm_before_blocks,
    "mask token": with_mask_token,
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_kinds_load_exactly(tmp_path: Path, make: Callable[[], tuple[VisionTransformer, State]]) -> None:
    """What libraries write differently changes no logit."""
    model, state = make()
    torch.save(state, tmp_path / "a.pth")
    images = random_images(model.shape, 3)
    assert_logits_close(imported_logits(tmp_path, tmp_path / "a.pth", images)[1], expected_logits(model, images))


def test_googles_arrays_load_exactly(tmp_path: Path) -> None:
    """JAX arrays have other names and other axes; the number of heads shows in them."""
    model = random_model(PLAIN)
    arrays: dict[str, Any] = dict(foreign_names.jax(model))
    np.savez(tmp_path / "a.npz", **arrays)
    images = random_images(PLAIN, 3)
    card, logits = imported_logits(tmp_path, tmp_path / "a.npz", images, num_heads=None)
    assert_logits_close(logits, expected_logits(model, images))
    assert card.architecture.num_heads == 4
    with pytest.raises(InputError, match=r"`num_heads`: must be 4, as the arrays' shapes say, got 2"):
        import_with(tmp_path / "a.npz", tmp_path / "again", 2)


def test_a_norm_behind_the_class_token_is_the_last_norm(tmp_path: Path) -> None:
    """timm with `global_pool="token", fc_norm=True`: of the one token that is read, it is the same as before."""
    model, images = random_model(PLAIN), random_images(PLAIN, 3)
    save_file(
        {n.replace("norm.", "fc_norm.") if n.startswith("norm.") else n: t for n, t in model.state_dict().items()},
        tmp_path / "a.safetensors",
    )
    (tmp_path / "config.json").write_text(json.dumps({"global_pool": "token", "pretrained_cfg": {}}))
    card, logits = imported_logits(tmp_path, tmp_path / "a.safetensors", images)
    assert_logits_close(logits, expected_logits(model, images))
    assert card.architecture.pooling == "class_token"


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"])
def test_the_activation_is_read_or_asked_for(tmp_path: Path, activation: Activation) -> None:
    """A config's activation is taken, an argument too, and one that contradicts it is refused."""
    shape = dataclasses.replace(PLAIN, activation=activation, layer_norm_eps=1e-12)
    model, images = random_model(shape), random_images(PLAIN, 3)
    save_file(foreign_names.huggingface(model), tmp_path / "a.safetensors")
    theirs = {"gelu_tanh": "gelu_pytorch_tanh", "silu": "swish"}.get(activation, activation)
    card, logits = imported_logits(tmp_path, tmp_path / "a.safetensors", images, activation=read_activation(activation))
    assert_logits_close(logits, expected_logits(model, images))
    assert "exact GELU" not in card.description
    (tmp_path / "config.json").write_text(json.dumps({"hidden_act": theirs, "num_attention_heads": 4}))
    card = import_with(tmp_path / "a.safetensors", tmp_path / "again", None)
    assert card.architecture.activation == activation
    other = "relu" if activation != "relu" else "gelu"
    with pytest.raises(InputError, match=rf"`activation`: must be {activation}, as .*config.json says, got {other}"):
        import_with(tmp_path / "a.safetensors", tmp_path / "no", None, activation=read_activation(other))


def test_what_is_assumed_is_said(tmp_path: Path) -> None:
    """Without a config, the card says what no tensor shows."""
    torch.save(random_model(PLAIN).state_dict(), tmp_path / "a.pth")
    card, _ = imported_logits(tmp_path, tmp_path / "a.pth", random_images(PLAIN, 1))
    assert card.description.endswith(
        "Assumed, as weights do not show it: blocks with norms before each half, square images, exact GELU, "
        "layer norms with epsilon 1e-06."
    )


# Names of one's own


def test_names_of_ones_own_are_mapped(tmp_path: Path) -> None:
    """A file with a map, and a patch embedding that is a linear layer over flattened patches."""
    model, images = random_model(PLAIN), random_images(PLAIN, 3)
    renamed = {"cls_token": "token", "pos_embed": "positions"}
    state = {renamed.get(n, n.replace("blocks.", "enc/")): t for n, t in model.state_dict().items()}
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].flatten(1).clone()
    torch.save(state, tmp_path / "a.pth")
    in_block = [n.removeprefix("blocks.0.") for n in model.state_dict() if n.startswith("blocks.0.")]
    names = renamed | {f"blocks.{{l}}.{name}": f"enc/{{l}}.{name}" for name in in_block}
    (tmp_path / "map.json").write_text(json.dumps(names))
    mapped = read_names(tmp_path / "map.json")
    assert_logits_close(
        imported_logits(tmp_path, tmp_path / "a.pth", images, names=mapped)[1], expected_logits(model, images)
    )
    with pytest.raises(InputError, match=r"none of these has them. Give a map .* as `names`"):
        import_with(tmp_path / "a.pth", tmp_path / "again", 4)


@pytest.mark.parametrize("content", ["{", "[1]", '{"cls_token": 3}', '{"qkv": ["a"]}', '{"qkv": ["a", "b", "c", "d"]}'])
def test_a_map_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    """One sentence that names the file."""
    (tmp_path / "map.json").write_text(content)
    with pytest.raises(InputError, match=r"map\.json: must be a JSON object that maps our names") as error:
        read_names(tmp_path / "map.json")
    assert "\n" not in str(error.value)


# What ours cannot be


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("layers.0.blocks.0.attn.relative_position_bias_table", "Swin"),
        ("blocks.0.attn.relative_position_bias_table", "BEiT"),
        ("blocks.0.mlp.norm.weight", "sub-LN"),
        ("blocks.0.attn_out_proj.weight", "parallel blocks"),
        ("blocks_token_only.0.norm1.weight", "CaiT"),
        ("patch_embed.backbone.stem.conv.weight", "hybrid"),
        ("tokenizer.conv_layers.0.weight", "Compact Transformer of texts"),
        ("vision_model.pre_layrnorm.weight", "CLIP"),
        ("rope.freqs", "rotary"),
        ("decoder_blocks.0.norm1.weight", "masked autoencoder"),
        ("dinov2.embeddings.cls_token", "Dinov2ForImageClassification"),
        ("attn_pool.latent", "SigLIP"),
        ("layer1.0.conv1.weight", "network of convolutions"),
        ("base_model.model.blocks.0.attn.qkv.lora_A.weight", "merge_and_unload"),
    ],
)
def test_other_networks_are_refused_by_name(tmp_path: Path, name: str, words: str) -> None:
    """A network that ours cannot be is called by its name, whatever else is in the file."""
    torch.save(random_model(PLAIN).state_dict() | {name: torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=f"a.pth: must be a plain ViT, but .*{words}"):
        import_with(tmp_path / "a.pth", tmp_path / "mine", 4)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
            "Git LFS pointer, not the weights: run git lfs",
        ),
        (b"<!DOCTYPE html><html>", "HTML page, not the weights: download"),
    ],
)
@pytest.mark.parametrize("file", ["a.safetensors", "a.pth", "a.npz"])
def test_what_is_no_weights_is_said(tmp_path: Path, file: str, content: bytes, words: str) -> None:
    """What people download in place of a file is recognised."""
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=words):
        import_with(tmp_path / file, tmp_path / "mine", 4)


def test_tensors_that_are_not_stored_are_refused(tmp_path: Path) -> None:
    """A tensor without values, one number that stands for a terabyte, and an archive that unpacks to anything."""
    state = random_model(PLAIN).state_dict()
    half = torch.ones(1, dtype=torch.float16)
    for name, value, words in (
        ("a.pth", torch.empty(12, device="meta"), "'norm.bias' must hold floating-point numbers, got a tensor without"),
        ("b.pth", half.expand(10**12), r"got 2 bytes repeated for shape \(1000000000000,\)"),
    ):
        torch.save(state | {"norm.bias": value}, tmp_path / name)
        with pytest.raises(InputError, match=words):
            import_with(tmp_path / name, tmp_path / "mine", 4)
    torch.save(state, tmp_path / "stored.pth")
    with (
        zipfile.ZipFile(tmp_path / "stored.pth") as stored,
        zipfile.ZipFile(tmp_path / "c.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for info in stored.infolist():
            packed.writestr(info.filename, stored.read(info))
    with pytest.raises(InputError, match=r"must be an archive as torch\.save writes it, got a compressed one"):
        import_with(tmp_path / "c.pth", tmp_path / "mine", 4)


def test_pickled_objects_are_named(tmp_path: Path) -> None:
    """Arguments of a training stand in the way: the type is named, and what to save instead."""
    torch.save({"model": random_model(PLAIN).state_dict(), "args": argparse.Namespace(lr=1)}, tmp_path / "a.pth")
    with pytest.raises(
        InputError, match=r"got the options of a training \('argparse\.Namespace'\) beside them\. Save the tensors"
    ):
        import_with(tmp_path / "a.pth", tmp_path / "mine", 4)
    torch.save(random_model(PLAIN), tmp_path / "b.pth")
    with pytest.raises(
        InputError, match=r"got a whole pickled model \('planner\.network\.vit\.VisionTransformer'\)\. Save the tensors"
    ):
        import_with(tmp_path / "b.pth", tmp_path / "mine", 4)
