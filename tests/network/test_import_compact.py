"""Compact Transformers as their authors write them: exact, or refused by name."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from planner.errors import InputError
from tests.helpers.checkpoints import assert_logits_close, import_with, imported_logits
from tests.helpers.compact_twin import HIDDEN, CompactTwin

CCT = CompactTwin()
TWINS = {
    "CCT of one convolution": CCT,
    "CCT of two": dataclasses.replace(CCT, num_convolutions=2),
    "CCT of two with kernels of 7": CompactTwin((16, 16), num_convolutions=2, kernel=7, stride=2),
    "CCT with kernels of 5": dataclasses.replace(CCT, kernel=5),
    "CVT": CompactTwin(num_convolutions=0, kernel=4),
    "ViT-Lite": CompactTwin(num_convolutions=0, kernel=2, has_class_token=True),
}
# What an import must be told of images and strides that the authors' models do not have.
TOLD = {
    "rectangles": (CompactTwin((8, 20), num_convolutions=2), (8, 20)),
    "another stride": (CompactTwin((8, 12), stride=2), (8, 12)),
    "another stride of larger kernels": (CompactTwin((8, 8), kernel=7, stride=1), (8, 8)),
}


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_compact_transformers_load_exactly(tmp_path: Path, twin: CompactTwin) -> None:
    """The model read back gives the logits of the authors' forward pass, and says what its names imply."""
    state, images = twin.state(), twin.images()
    torch.save({"state_dict": {f"module.{name}": t for name, t in state.items()}}, tmp_path / "a.pth")
    card, logits = imported_logits(tmp_path, tmp_path / "a.pth", images)
    assert_logits_close(logits, twin.logits(state, images))
    architecture = card.architecture
    assert (architecture.image_sides, architecture.hidden_dim) == (twin.image, HIDDEN)
    assert (len(architecture.stem_channels), architecture.norm_between_halves) == (twin.num_convolutions, True)
    assert architecture.layer_norm_eps == 1e-5
    assert "norms before each half" not in card.description
    said = f"convolutions of stride {twin.stride}, each before a ReLU and max pooling"
    assert (said in card.description) == (twin.num_convolutions > 0)


@pytest.mark.parametrize(("twin", "image_size"), TOLD.values(), ids=TOLD)
def test_the_images_size_tells_strides(tmp_path: Path, twin: CompactTwin, image_size: tuple[int, int]) -> None:
    """Height and width, with the number of positions, say what the kernels do not."""
    state, images = twin.state(), twin.images()
    torch.save(state, tmp_path / "a.pth")
    card, logits = imported_logits(tmp_path, tmp_path / "a.pth", images, image_size=image_size)
    assert_logits_close(logits, twin.logits(state, images))
    assert card.architecture.stem_stride == twin.stride


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"classifier.positional_emb": None}, {}, r"must have positions \(classifier.positional_emb\), got a Compact"),
        ({"classifier.positional_emb": torch.ones(16)}, {}, "'classifier.positional_emb' must have 3 dimensions, got"),
        ({"tokenizer.conv_layers.0.0.weight": torch.tensor(1.0)}, {}, "0.0.weight' must have 4 dimensions|is missing"),
        ({"tokenizer.conv_layers.2.0.weight": torch.ones(12, 12, 3, 3)}, {}, "belongs to no part of the network"),
        ({"classifier.fc.bias": None}, {}, "tensor 'classifier.fc.bias' is missing"),
        ({}, {"image_size": (12, 8)}, r"'classifier.positional_emb' must have 0 \+ 24 tokens for images of 12x8"),
        (
            {"tokenizer.conv_layers.0.0.weight": torch.ones(12, 3, 2, 2)},
            {},
            r"cannot have a card: .*stem_kernel: must be 3, 5 or 7, got 2",
        ),
        ({"embedder.embeddings.weight": torch.ones(2, 2)}, {}, "is a Compact Transformer of texts"),
        ({"classifier.blocks.0.norm9.weight": torch.ones(2)}, {}, "belongs to no part of the network"),
    ],
)
def test_other_compact_transformers_are_refused(
    tmp_path: Path, changes: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    """The message says what ours lacks, by the file's names."""
    state = {name: tensor for name, tensor in (CCT.state() | changes).items() if tensor is not None}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InputError, match=message):
        import_with(tmp_path / "a.pth", tmp_path / "mine", 4, **settings)
