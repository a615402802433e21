"""Layer-wise reconstruction in closed form: never a larger error half by half, and exact where nothing is cut."""

import pytest
import torch
from torch import Tensor

from planner.network.reconstruction import reconstruct
from planner.network.surgery import cut
from planner.network.vit import Block, Shape, VisionTransformer
from tests.helpers.plain_vit import random_images, random_model

SHAPE = Shape(
    image_size=12,
    patch_size=4,
    in_channels=3,
    num_classes=5,
    embed_dim=12,
    head_dim=3,
    num_heads=(4, 4, 4),
    hidden_dim=(20, 20, 20),
)
DISTILLED = Shape(**{**SHAPE.__dict__, "distilled": True})
IMAGES = random_images(SHAPE, 24)


def logits(model: VisionTransformer) -> Tensor:
    """Return a model's logits for the images."""
    with torch.no_grad():
        out: Tensor = model(IMAGES)
    return out


def streams(model: VisionTransformer) -> list[Tensor]:
    """Return the residual stream behind each block, (B, N, E)."""
    found = []
    with torch.no_grad():
        x = model.embed(IMAGES)
        for block in model.blocks:
            x = block(x)
            found.append(x)
    return found


def pruned(model: VisionTransformer, seed: int, embed_dims: list[int] | None = None) -> VisionTransformer:
    """Return a sub-model with random heads and channels; a block or two may lack a half."""
    generator = torch.Generator().manual_seed(seed)

    def draw(size: int, least: int) -> list[int]:
        count = int(torch.randint(least, size, (), generator=generator))
        return sorted(torch.randperm(size, generator=generator)[:count].tolist())

    heads = [draw(4, int(l == 0)) for l in range(3)]
    return cut(model, heads, [draw(20, 0) for _ in range(3)], embed_dims)


@pytest.mark.parametrize("shape", [SHAPE, DISTILLED], ids=["plain", "distilled"])
def test_nothing_is_cut_and_nothing_changes(shape: Shape) -> None:
    """A sub-model that keeps everything follows the whole model already."""
    whole = random_model(shape)
    everything = cut(whole, [range(4)] * 3, [range(20)] * 3)
    reconstruct(everything, whole, range(12), IMAGES)
    torch.testing.assert_close(logits(everything), logits(whole), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dims", [None, [0, 2, 3, 5, 7, 8, 11]], ids=["full", "narrow"])
def test_the_last_stream_is_nearer_to_the_whole_models(seed: int, dims: list[int] | None) -> None:
    """On its own images the stream behind the last block follows the whole model's better than as cut."""
    whole = random_model(SHAPE)
    kept = list(range(12)) if dims is None else dims
    sub_model = pruned(whole, seed, dims)
    target = streams(whole)[-1][..., kept]
    before = float((streams(sub_model)[-1] - target).pow(2).sum())
    reconstruct(sub_model, whole, kept, IMAGES, prefix_weight=1.0)
    assert float((streams(sub_model)[-1] - target).pow(2).sum()) < before


def test_the_first_half_is_a_least_squares_fit() -> None:
    """Behind the first attention half, no other output layer is better: its gradient vanishes, but for the penalty."""
    whole = random_model(SHAPE)
    sub_model = cut(whole, [[1, 2], [0], [0]], [range(20)] * 3)
    reconstruct(sub_model, whole, range(12), IMAGES, ridge=0.0, prefix_weight=1.0)
    block, whole_block = sub_model.blocks[0], whole.blocks[0]
    assert isinstance(block, Block)
    assert isinstance(whole_block, Block)
    assert block.attn is not None
    assert whole_block.attn is not None
    with torch.no_grad():
        x = whole.embed(IMAGES)
        inputs = block.attn.inner(block.norm1(x)).flatten(0, 1).double()
        residual = (whole_block.attn(whole_block.norm1(x)) - block.attn(block.norm1(x))).flatten(0, 1).double()
        centred = inputs - inputs.mean(0)
    assert residual.mean(0).abs().max() < 1e-6
    assert (centred.T @ residual).abs().max() < 1e-4 * centred.norm() * residual.norm()


def test_order_and_number_of_images_in_a_batch_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sub-model in one batch and in many."""
    whole, made = random_model(SHAPE), []
    for batch in (64, 5):
        monkeypatch.setattr("planner.network.reconstruction._BATCH", batch)
        sub_model = pruned(whole, 1)
        reconstruct(sub_model, whole, range(12), IMAGES)
        made.append(logits(sub_model))
    torch.testing.assert_close(made[0], made[1], rtol=1e-4, atol=1e-5)


def test_only_output_layers_change() -> None:
    """Queries, keys, values, hidden layers, norms and embeddings are those of the cut; the whole model is untouched."""
    whole = random_model(SHAPE)
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    sub_model = pruned(whole, 2)
    as_cut = {name: tensor.clone() for name, tensor in sub_model.state_dict().items()}
    reconstruct(sub_model, whole, range(12), IMAGES)
    changed = {name for name, tensor in sub_model.state_dict().items() if not torch.equal(tensor, as_cut[name])}
    assert {name.rsplit(".", 1)[0].split(".")[-1] for name in changed} <= {"proj", "fc2", "head"}
    assert not any(name.startswith("patch_embed") for name in changed)
    assert all(torch.equal(tensor, before[name]) for name, tensor in whole.state_dict().items())


def test_one_image_and_empty_blocks_are_enough() -> None:
    """A sub-model with nothing but one head, from one image: finite, and nothing to refit elsewhere."""
    whole = random_model(SHAPE)
    sub_model = cut(whole, [[0], [], []], [[], [], []])
    reconstruct(sub_model, whole, range(12), IMAGES[:1])
    assert all(torch.isfinite(parameter).all() for parameter in sub_model.parameters())
    assert sum(block.attn is None for block in sub_model.blocks) == 2
