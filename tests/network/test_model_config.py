"""The config.json beside a checkpoint says what weights do not show; a contradiction with an argument is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from planner.errors import InputError
from planner.network.model_config import ModelConfig, read_config
from planner.network.vit import Shape
from tests.helpers.checkpoints import import_with
from tests.helpers.plain_vit import random_model

SHAPE = Shape(
    image_size=12,
    patch_size=4,
    in_channels=3,
    num_classes=3,
    embed_dim=12,
    head_dim=2,
    num_heads=(6, 6),
    hidden_dim=(20, 20),
)
HUGGINGFACE: dict[str, Any] = {
    "model_type": "vit",
    "hidden_act": "gelu",
    "num_attention_heads": 6,
    "layer_norm_eps": 1e-5,
    "id2label": {"0": "cat", "2": "eel", "1": "dog"},
}
TIMM: dict[str, Any] = {
    "architecture": "vit_small_patch14_dinov2",
    "model_args": {"img_size": 12},
    "pretrained_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1], "label_names": ["cat", "dog", "eel"]},
}


def beside(folder: Path, config: object) -> Path:
    """Write a config and return the path of a checkpoint beside it, which need not exist."""
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return folder / "model.safetensors"


def checkpoint(folder: Path, config: object) -> Path:
    """Write a checkpoint with a config beside it."""
    save_file(random_model(SHAPE).state_dict(), folder / "model.safetensors")
    return beside(folder, config)


def test_huggingfaces_config_is_read(tmp_path: Path) -> None:
    """Heads, epsilon and the names of the classes in the order of their numbers."""
    found = read_config(beside(tmp_path, HUGGINGFACE))
    assert found == ModelConfig(tmp_path / "config.json", 6, 1e-5, ("cat", "dog", "eel"), activation="gelu")


def test_timms_config_is_read(tmp_path: Path) -> None:
    """Heads by the architecture's name, names of the classes, mean and std."""
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.2, 0.1)
    found = read_config(beside(tmp_path, TIMM))
    assert found == ModelConfig(
        tmp_path / "config.json", 6, None, ("cat", "dog", "eel"), mean, std, image_size=(12, 12)
    )


@pytest.mark.parametrize(
    ("architecture", "num_heads"),
    [
        ("vit_tiny_patch16_224", 3),
        ("deit_base_distilled_patch16_224", 12),
        ("deit3_large_patch16_384", 16),
        ("flexivit_base", 12),
        ("vit_medium_patch16_gap_240", None),
        ("resnet50", None),
    ],
)
def test_heads_follow_from_the_name_of_an_architecture(
    tmp_path: Path, architecture: str, num_heads: int | None
) -> None:
    """Known sizes have known heads; of others nothing is assumed."""
    found = read_config(beside(tmp_path, TIMM | {"architecture": architecture}))
    assert found is not None
    assert found.num_heads == num_heads


def test_placeholders_are_no_names(tmp_path: Path) -> None:
    """LABEL_0 and so on say nothing about the classes."""
    labels = {str(i): f"LABEL_{i}" for i in range(3)}
    found = read_config(beside(tmp_path, HUGGINGFACE | {"id2label": labels}))
    assert found is not None
    assert found.classes is None


def test_no_config_says_nothing(tmp_path: Path) -> None:
    """A checkpoint alone in its folder has no settings."""
    assert read_config(tmp_path / "model.safetensors") is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "must be JSON"),
        ([1], "must be a JSON object, got list"),
        (HUGGINGFACE | {"hidden_act": "mish"}, "hidden_act must be one of gelu, .*, got 'mish'"),
        (TIMM | {"global_pool": "map"}, "global_pool must be 'token' or 'avg'.* got 'map'"),
        (HUGGINGFACE | {"num_attention_heads": "six"}, "num_attention_heads must be a whole number from 1 on"),
        (HUGGINGFACE | {"layer_norm_eps": -1.0}, "layer_norm_eps must be a number above 0, got -1.0"),
        (TIMM | {"pretrained_cfg": {"mean": 0.5}}, "mean must be a list of numbers, got 0.5"),
    ],
)
def test_a_config_that_cannot_be_used_is_refused(tmp_path: Path, config: object, message: str) -> None:
    """One sentence that names the file, the key and what was got."""
    with pytest.raises(InputError, match=message) as error:
        read_config(beside(tmp_path, config))
    assert str(error.value).startswith(str(tmp_path / "config.json"))


def test_an_import_needs_no_heads_where_the_config_has_them(tmp_path: Path) -> None:
    """Heads, classes and preprocessing of the card are those of the config."""
    card = import_with(checkpoint(tmp_path, TIMM), tmp_path / "mine", num_heads=None)
    assert (card.architecture.num_heads, card.architecture.head_dim) == (6, 2)
    assert card.classes == ("cat", "dog", "eel")
    assert card.preprocessing is not None
    assert card.preprocessing.mean == (0.5, 0.4, 0.3)


def test_an_argument_wins_where_the_config_is_silent(tmp_path: Path) -> None:
    """Names of classes that are given replace those of the config."""
    source = checkpoint(tmp_path, TIMM)
    assert import_with(source, tmp_path / "mine", None, classes=["x", "y", "z"]).classes == ("x", "y", "z")


@pytest.mark.parametrize(
    ("config", "arguments", "message"),
    [
        (TIMM, {"num_heads": 3}, r"`num_heads`: must be 6, as .*config.json says, got 3"),
        (HUGGINGFACE, {"num_heads": 6, "layer_norm_eps": 1e-6}, r"`layer_norm_eps`: must be 1e-05, as .* got 1e-06"),
    ],
)
def test_a_contradiction_is_refused(tmp_path: Path, config: object, arguments: dict[str, Any], message: str) -> None:
    """Neither the file nor the user is believed over the other."""
    with pytest.raises(InputError, match=message):
        import_with(checkpoint(tmp_path, config), tmp_path / "mine", **arguments)


def test_names_for_another_number_of_classes_are_refused(tmp_path: Path) -> None:
    """A config of another model's classes does not fit the head."""
    config = HUGGINGFACE | {"id2label": {"0": "cat", "1": "dog"}}
    with pytest.raises(InputError, match="has 3 classes, got names for 2"):
        import_with(checkpoint(tmp_path, config), tmp_path / "mine", None)
