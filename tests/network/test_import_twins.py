"""Twins of other libraries' ViTs load exactly: gated MLPs, norms of queries and keys, rectangles, missing biases."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from planner.errors import InputError
from planner.network.import_settings import read_gate, read_image_size
from tests.helpers.checkpoints import PLAIN, assert_logits_close, import_with, imported_logits
from tests.helpers.plain_vit import random_model
from tests.helpers.reference_vit import (
    BLOCKS,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    PACKED_LAYERS,
    E,
    Twin,
    apart,
    apart_layers,
    packed,
)

DINOV2_LAYERS = (("w12", 2 * HIDDEN, E), ("w3", E, HIDDEN))
ALL_LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
# Twins, and what an import must be told beside heads.
TWINS: dict[str, tuple[Twin, dict[str, Any]]] = {
    "plain": (Twin(), {}),
    "SwiGLUPacked": (Twin(packed(F.silu, 0), PACKED_LAYERS), {}),
    "GluMlp": (Twin(packed(torch.sigmoid, 1), PACKED_LAYERS), {"activation": "sigmoid", "gate": "last"}),
    "GEGLU": (Twin(packed(F.gelu, 1), PACKED_LAYERS), {"activation": "gelu", "gate": "last"}),
    "DINOv2-giant": (Twin(packed(F.silu, 0, "w12", "w3"), DINOV2_LAYERS), {}),
    "timm's SwiGLU": (Twin(apart("fc1_g", "fc1_x", "fc2"), apart_layers("fc1_g", "fc1_x", "fc2")), {}),
    "w1, w2, w3": (Twin(apart("w1", "w2", "w3"), apart_layers("w1", "w2", "w3")), {}),
    "gate_proj without biases": (
        Twin(
            apart("gate_proj", "up_proj", "down_proj"),
            apart_layers("gate_proj", "up_proj", "down_proj"),
            biasless=("gate_proj", "up_proj", "down_proj"),
        ),
        {},
    ),
    "LayerNorm of queries and keys": (Twin(qk_norm="weight bias"), {"num_heads": None}),
    "RMSNorm of queries and keys": (Twin(qk_norm="weight"), {}),
    "no biases in any block": (Twin(biasless=ALL_LAYERS), {}),
    "rectangular patches": (Twin(image=(6, 6), patch=(2, 3)), {"image_size": (6, 6)}),
    "rectangular images": (Twin(image=(4, 10)), {"image_size": (4, 10)}),
    "rectangles of a square of patches": (Twin(image=(2, 18)), {"image_size": (2, 18)}),
    "rectangles, registers without positions": (
        Twin(image=(4, 10), patch=(2, 5), num_registers=2, prefix_has_positions=False),
        {"image_size": (4, 10)},
    ),
    "gated, normed, rectangular": (
        Twin(packed(F.silu, 0), PACKED_LAYERS, "weight bias", (4, 9), (2, 3), 1),
        {"image_size": (4, 9)},
    ),
}


@pytest.mark.parametrize(("twin", "told"), TWINS.values(), ids=TWINS)
def test_twins_load_exactly(tmp_path: Path, twin: Twin, told: dict[str, Any]) -> None:
    """The model read back gives the logits of the other library's forward pass."""
    state, images = twin.state(), twin.images()
    torch.save(state, tmp_path / "a.pth")
    card, logits = imported_logits(tmp_path, tmp_path / "a.pth", images, **told)
    assert_logits_close(logits, twin.logits(state, images))
    assert card.architecture.num_heads == HEADS
    assert card.architecture.hidden_dim == HIDDEN
    assert card.architecture.image_sides == twin.image
    assert card.architecture.patch_sides == twin.patch


@pytest.mark.parametrize(
    ("twin", "told", "words"),
    [
        (TWINS["SwiGLUPacked"][0], {}, "gates behind SiLU, gates before values, layer norms"),
        (TWINS["timm's SwiGLU"][0], {"activation": "silu"}, "square images, layer norms with"),
        (TWINS["RMSNorm of queries and keys"][0], {}, "exact GELU, RMS norms of queries and keys, which have no bias"),
        (TWINS["rectangular images"][0], {"image_size": (4, 10)}, "before each half, exact GELU"),
        (TWINS["no biases in any block"][0], {}, "The last layers of the MLPs have no bias: it is zero."),
    ],
)
def test_what_does_not_show_is_said(tmp_path: Path, twin: Twin, told: dict[str, Any], words: str) -> None:
    """The card says what was assumed of gates, of norms, of images, and which biases are zero."""
    torch.save(twin.state(), tmp_path / "a.pth")
    assert words in import_with(tmp_path / "a.pth", tmp_path / "mine", HEADS, **told).description


EVA_CONFIG = {"pretrained_cfg": {}, "model_args": {"use_rot_pos_emb": False}}


@pytest.mark.parametrize("is_fused", [True, False], ids=["qkv", "q_proj, k_proj, v_proj"])
def test_eva_without_rotary_positions_loads_exactly(tmp_path: Path, is_fused: bool) -> None:
    """timm's Eva: keys have no bias, LayerScale has other names; whether positions are rotary must be said."""
    twin = Twin(packed(F.silu, 0), PACKED_LAYERS)
    state, images = twin.state(), twin.images()
    stored = dict(state)
    for l in range(BLOCKS):
        attention, inner = f"blocks.{l}.attn", HEADS * HEAD_DIM
        state[f"{attention}.qkv.bias"][inner : 2 * inner] = 0
        q_bias, _, v_bias = stored.pop(f"{attention}.qkv.bias").clone().chunk(3)
        stored |= {f"{attention}.q_bias": q_bias, f"{attention}.v_bias": v_bias}
        if not is_fused:
            weights = stored.pop(f"{attention}.qkv.weight").chunk(3)
            stored |= {f"{attention}.{p}_proj.weight": part.clone() for p, part in zip("qkv", weights, strict=True)}
            stored |= {f"{attention}.{p}_proj.bias": stored.pop(f"{attention}.{p}_bias") for p in "qv"}
        for factor, layer in (("gamma_1", "attn.proj"), ("gamma_2", "mlp.fc2")):
            gamma = stored[f"blocks.{l}.{factor}"] = torch.linspace(0.1, 0.3, E)
            state[f"blocks.{l}.{layer}.weight"] = gamma[:, None] * state[f"blocks.{l}.{layer}.weight"]
            state[f"blocks.{l}.{layer}.bias"] = gamma * state[f"blocks.{l}.{layer}.bias"]
    torch.save(stored, tmp_path / "a.pth")
    with pytest.raises(
        InputError, match=r"but has the names of timm's EVA, whose rotary positions leave no trace .* if"
    ):
        import_with(tmp_path / "a.pth", tmp_path / "mine", HEADS)
    (tmp_path / "config.json").write_text(json.dumps(EVA_CONFIG))
    assert_logits_close(imported_logits(tmp_path, tmp_path / "a.pth", images)[1], twin.logits(state, images))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architecture": "eva02_tiny_patch14_224"}, "has rotary positions, as its config.json says"),
        ({"architecture": "vit_base_patch16_rope_224"}, "has rotary positions, as its config.json says"),
    ],
)
def test_rotary_positions_are_refused_though_no_tensor_shows_them(
    tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    """An architecture of timm's that has them is refused by its name, whatever its tensors are called."""
    torch.save(Twin().state(), tmp_path / "a.pth")
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {}} | config))
    with pytest.raises(InputError, match=words):
        import_with(tmp_path / "a.pth", tmp_path / "mine", HEADS)


@pytest.mark.parametrize(
    "config",
    [
        {"num_attention_heads": 4, "image_size": [4, 10]},
        {"pretrained_cfg": {}, "model_args": {"img_size": [4, 10], "num_heads": 4}},
        {"pretrained_cfg": {"input_size": [3, 4, 10]}, "model_args": {"num_heads": 4}},
    ],
)
def test_a_config_says_that_images_are_rectangular(tmp_path: Path, config: dict[str, Any]) -> None:
    """The sides are read where a library writes them; an argument that contradicts them is refused."""
    twin = Twin(image=(4, 10))
    state, images = twin.state(), twin.images()
    torch.save(state, tmp_path / "a.pth")
    (tmp_path / "config.json").write_text(json.dumps(config))
    card, logits = imported_logits(tmp_path, tmp_path / "a.pth", images, num_heads=None)
    assert_logits_close(logits, twin.logits(state, images))
    assert card.architecture.image_size == (4, 10)
    with pytest.raises(InputError, match=r"`image_size`: must be \(4, 10\), as .*config.json says, got \(10, 4\)"):
        import_with(tmp_path / "a.pth", tmp_path / "again", image_size=(10, 4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"must have 1 \+ a square of tokens, got 11; if images .* as `image_size=4x10`, or whatever it is"),
        ({"image_size": (4, 12)}, r"'pos_embed' must have 1 \+ 12 tokens for images of 4x12 and patches of 2x2 pixels"),
        (
            {"image_size": (5, 10)},
            r"cannot have a card: .*image_size must be a multiple of patch_size 2, got \[5",
        ),
    ],
)
def test_an_image_that_the_positions_do_not_fit_is_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    """Sides are asked for where patches are no square, and must go with positions and patches."""
    torch.save(Twin(image=(4, 10)).state(), tmp_path / "a.pth")
    with pytest.raises(InputError, match=message):
        import_with(tmp_path / "a.pth", tmp_path / "mine", HEADS, **settings)


def test_gates_and_values_of_ones_own_names(tmp_path: Path) -> None:
    """A map has two names for fc1: gates, then values; then there is no half to choose."""
    twin = TWINS["timm's SwiGLU"][0]
    state, images = twin.state(), twin.images()
    torch.save({n.replace("fc1_g", "up.a").replace("fc1_x", "up.b"): t for n, t in state.items()}, tmp_path / "a.pth")
    ends = ("weight", "bias")
    names = {f"blocks.{{l}}.mlp.fc1.{e}": (f"blocks.{{l}}.mlp.up.a.{e}", f"blocks.{{l}}.mlp.up.b.{e}") for e in ends}
    logits = imported_logits(tmp_path, tmp_path / "a.pth", images, names=names)[1]
    assert_logits_close(logits, twin.logits(state, images))
    with pytest.raises(InputError, match="`gate`: must be left out where gates and values have names of their own"):
        import_with(tmp_path / "a.pth", tmp_path / "again", HEADS, names=names, gate="last")


def test_heads_that_contradict_the_norms_of_queries_are_refused(tmp_path: Path) -> None:
    """Norms of queries are as wide as a head."""
    torch.save(Twin(qk_norm="weight bias").state(), tmp_path / "a.pth")
    with pytest.raises(InputError, match="must be the width of the queries, 12, divided by that of their norm, 3"):
        import_with(tmp_path / "a.pth", tmp_path / "mine", 6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"blocks.0.norm1.bias": None}, "has norms without a bias, as RMSNorm"),
        (
            {f"blocks.{l}.attn.{p}_norm.weight": torch.ones(12) for l in (0, 1) for p in "qk"},
            "normalises the queries of all heads together",
        ),
    ],
)
def test_other_norms_are_refused_by_name(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    """Norms that ours cannot be, under our own names."""
    state = {n: t for n, t in (random_model(PLAIN).state_dict() | change).items() if t is not None}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InputError, match=f"must be a plain ViT, but {words}"):
        import_with(tmp_path / "a.pth", tmp_path / "mine", 4)


def test_sizes_and_halves_as_people_write_them() -> None:
    """A side or two, and one of two words."""
    assert read_image_size(None) is None
    assert read_image_size("40x98") == (40, 98)
    assert read_image_size("224") == (224, 224)
    with pytest.raises(InputError, match="must be a height and a width such as 40x98, or a side such as 224, got '4x'"):
        read_image_size("4x")
    assert (read_gate(None), read_gate("last")) == (None, "last")
    with pytest.raises(InputError, match="`gate`: must be first or last, got 'second'"):
        read_gate("second")
