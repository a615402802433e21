"""Cards: rules between keys, refusals, and the sizes of the shipped models."""

import json
from pathlib import Path

import pytest

from planner.errors import InputError
from planner.library import DEFAULT_PROFILE, folder
from planner.network import audit, counts
from planner.network.checkpoint import load_card, load_model, whole_shape
from planner.network.vit import VisionTransformer
from planner.schema import ModelCard, numbered_classes, read_document, write_document
from tests.helpers.common import Json

ARCHITECTURE = {
    "image_size": 4,
    "patch_size": 2,
    "in_channels": 1,
    "embed_dim": 8,
    "depth": 2,
    "num_heads": 2,
    "head_dim": 4,
    "hidden_dim": 6,
}
CARD = {"model": "m", "description": "", "architecture": ARCHITECTURE, "classes": ["a", "b"]}
PREPROCESSING = {"mean": [0.5], "std": [0.5]}
IDX = {"source": "idx", "train_images": "a", "train_labels": "b"}
SPLIT = {"test_share": 0.3, "split_seed": 0}

# Parameters of timm's models; MACs [G] as published, layer norms and attention included.
KNOWN = {
    "vit_tiny_patch16_224": (5_717_416, "1.258"),
    "vit_small_patch16_224": (22_050_664, "4.608"),
    "vit_base_patch16_224": (86_567_656, "17.58"),
    "vit_large_patch16_224": (304_326_632, "61.60"),
    "deit_tiny_patch16_224": (5_717_416, "1.258"),
    "deit_small_patch16_224": (22_050_664, "4.608"),
    "deit_base_patch16_224": (86_567_656, "17.58"),
    "deit_tiny_distilled_patch16_224": (5_910_800, "1.266"),
    "deit_small_distilled_patch16_224": (22_436_432, "4.633"),
    "deit_base_distilled_patch16_224": (87_338_192, "17.68"),
}


def read(tmp_path: Path, **changes: object) -> ModelCard:
    """Write the small card with some keys changed, and read it."""
    path = tmp_path / "card.json"
    path.write_text(json.dumps(CARD | changes))
    return read_document(path, ModelCard)


@pytest.mark.parametrize("name", KNOWN)
def test_a_shipped_card_has_the_published_size(name: str) -> None:
    """The closed form gives the published number of parameters, and MACs to four digits."""
    card = load_card(name)
    total = counts.exact(whole_shape(card))
    assert (total.params, f"{total.macs / 1e9:#.4g}") == KNOWN[name]
    assert card.model == name
    assert card.classes == tuple(str(i) for i in range(1000))
    assert card.weights is None


def test_every_shipped_card_is_known() -> None:
    """Nothing but the published sizes and the digits ViT is shipped, and the digits ViT is the default."""
    assert {path.parent.name for path in folder("models").glob("*/card.json")} == {*KNOWN, "digits-vit"}
    assert DEFAULT_PROFILE == "digits-vit"
    assert load_model("digits-vit")[0].weights is not None


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_base_patch16_224"])
def test_a_shipped_card_is_counted_as_its_closed_form(name: str) -> None:
    """fvcore and torch count the card's network as the closed form does."""
    shape = whole_shape(load_card(name))
    model = VisionTransformer(shape).eval()
    assert audit.count(model) == counts.exact(shape)


def test_a_card_without_weights_is_no_model() -> None:
    """A card without weights has costs but cannot be loaded; the message says what to do."""
    with pytest.raises(InputError, match=r"card\.json: the card has no weights.*`planner import"):
        load_model("deit_tiny_patch16_224")


@pytest.mark.parametrize(("given", "names"), [(3, ("0", "1", "2")), (["x", "y"], ("x", "y"))])
def test_classes_are_names_or_a_number(tmp_path: Path, given: int | list[str], names: tuple[str, ...]) -> None:
    """A number stands for the names 0, 1, ..., and is written back as a number."""
    card = read(tmp_path, classes=given)
    assert card.classes == names
    write_document(tmp_path / "card.json", card)
    assert json.loads((tmp_path / "card.json").read_text())["classes"] == given
    assert read_document(tmp_path / "card.json", ModelCard) == card


def test_preprocessing_may_stand_without_data(tmp_path: Path) -> None:
    """A checkpoint may come with its preprocessing and without images."""
    card = read(tmp_path, preprocessing=PREPROCESSING)
    assert (card.data, card.preprocessing and card.preprocessing.mean) == (None, (0.5,))


def test_a_minimal_card_has_the_usual_conventions(tmp_path: Path) -> None:
    """Defaults are timm's names and epsilon, one prefix token and no data."""
    card = read(tmp_path)
    assert (card.parameter_names, card.data, card.training, card.accuracy) == ("timm", None, None, None)
    assert (whole_shape(card).distilled, whole_shape(card).layer_norm_eps) == (False, 1e-6)
    other = read(tmp_path, architecture=ARCHITECTURE | {"distilled": True, "layer_norm_eps": 1e-12})
    assert (whole_shape(other).distilled, whole_shape(other).layer_norm_eps) == (True, 1e-12)
    assert whole_shape(other).num_tokens == 2 + 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": 0}, "classes must be names or a number from 1 to 100000, got 0"),
        ({"classes": True}, "classes must be a valid"),
        ({"classes": []}, "classes must have at least 1 entry"),
        ({"classes": ["a", "a"]}, "names must differ, 'a' is given twice"),
        ({"weights": "w"}, "both weights and weights_sha256 or neither, got weights alone"),
        ({"weights_sha256": "0"}, "both weights and weights_sha256 or neither, got weights_sha256 alone"),
        ({"data": IDX | SPLIT}, "a card with data must have preprocessing too, got data alone"),
        ({"parameter_names": "tim"}, "parameter_names must be 'timm', 'huggingface' or 'torchvision', got \"tim\""),
        ({"architecture": ARCHITECTURE | {"layer_norm_eps": 0}}, "architecture: layer_norm_eps must be > 0, got 0"),
        ({"architecture": ARCHITECTURE | {"patch_size": 3}}, "image_size must be a multiple of patch_size 3"),
        (
            {"architecture": ARCHITECTURE | {"stem_channels": [4, 8]}},
            "patch_size must be a multiple of 4, as each of 2 stem_channels divides the image's sides by 2, got 2",
        ),
        ({"architecture": ARCHITECTURE | {"stem_channels": [0]}}, r"stem_channels\[0\]: must be >= 1, got 0"),
    ],
)
def test_a_card_that_does_not_hold_together_is_refused(tmp_path: Path, changes: Json, message: str) -> None:
    """The message names the file, the rule and the value."""
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path, **changes)
    assert str(error.value).startswith(f"{tmp_path / 'card.json'}: ")


@pytest.mark.parametrize(
    ("data", "preprocessing", "message"),
    [
        (
            {"source": "mnist"},
            {},
            r"data\.source must be one of 'sklearn-digits', 'idx', 'npz', 'folder', .*'audio-npz', got 'mnist'",
        ),
        ({"train": "a"}, {}, r"data\.source is missing"),
        (IDX, {}, "data must have either test_images and test_labels or test_share and split_seed, got neither"),
        (IDX | SPLIT | {"test_images": "c", "test_labels": "d"}, {}, "test_share and split_seed, got both"),
        (IDX | {"test_images": "c"}, {}, "data must have test_images and test_labels or none.*got no test_labels"),
        (
            IDX | SPLIT | {"validation_labels": "c"},
            {},
            "data must have validation_images and validation_labels or none.*got no validation_images",
        ),
        (
            {"source": "npz", "train": "a", "test": "b", "validation": "./b"},
            {},
            r"data must have other images under validation than under test, got '\./b' for both",
        ),
        (
            {"source": "folder", "train": "a", "validation": "a"} | SPLIT,
            {},
            "data must have other images under validation than under train, got 'a' for both",
        ),
        (IDX | {"test_share": 0.3}, {}, "data must have test_share and split_seed or none of them, got no split_seed"),
        ({"source": "idx", "train_images": "a"} | SPLIT, {}, "data: train_labels is missing"),
        ({"source": "npz", "train": "a", "tets": "b"}, {}, r"data: unknown key 'tets'; did you mean 'test'\?"),
        (IDX | SPLIT, {"mean": [0, 0]}, "preprocessing: mean must have an entry for each of 1 channels, got 2"),
        (IDX | SPLIT, {"std": [0.0]}, r"preprocessing\.std\[0\]: must be > 0"),
        (IDX | SPLIT, {"resize": 3}, "preprocessing: resize must be >= image_size 4"),
        (IDX | SPLIT, {"resize": [5, 3]}, r"preprocessing: resize must be >= image_size 4, .* got \[5, 3\]"),
        (
            IDX | SPLIT,
            {"resize": "middle"},
            r'must be a number of pixels, \[height, width\] or "letterbox", got \'middle',
        ),
        (IDX | SPLIT, {"resize": {"shorter": 5}}, "must be a number of pixels, .* got {'shorter': 5}"),
    ],
)
def test_inconsistent_data_are_refused(tmp_path: Path, data: Json, preprocessing: Json, message: str) -> None:
    """Unknown sources, contradicting test parts and incomplete pairs are named with their place."""
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path, data=data, preprocessing=PREPROCESSING | preprocessing)
    assert "\n" not in str(error.value)


def test_numbered_names() -> None:
    """Three numbered classes are named 0, 1 and 2."""
    assert numbered_classes(3) == ("0", "1", "2")
