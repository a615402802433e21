"""Layer-wise reconstruction in closed form: never a larger error half by half, and exact where nothing is cut."""

import pytest
import torch
from torch import Tensor, nn

from planner.network.half_blocks import HalfBlock
from planner.network.reconstruction import reconstruct
from planner.network.surgery import Selection
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
CVT = Shape(**{**SHAPE.__dict__, "class_token": False, "pooling": "sequence", "norm_between_halves": True})
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


def pruned(seed: int, width: int = 12) -> Selection:
    """Return random heads and channels, of which a block or two may lack all, and the first embed dims."""
    generator = torch.Generator().manual_seed(seed)

    def draw(size: int, least: int) -> list[int]:
        count = int(torch.randint(least, size, (), generator=generator))
        return torch.randperm(size, generator=generator)[:count].tolist()

    heads = [draw(4, int(l == 0)) for l in range(3)]
    return Selection.of(heads, [draw(20, 0) for _ in range(3)], range(width))


def recovered(whole: VisionTransformer, selection: Selection, images: Tensor = IMAGES) -> VisionTransformer:
    """Return the sub-model of a selection, cut and reconstructed."""
    sub_model = selection.cut(whole)
    reconstruct(sub_model, whole, selection, images)
    return sub_model


EVERYTHING = Selection.of([range(4)] * 3, [range(20)] * 3, range(12))


@pytest.mark.parametrize("shape", [SHAPE, DISTILLED, CVT], ids=["plain", "distilled", "CVT"])
def test_nothing_is_cut_and_nothing_changes(shape: Shape) -> None:
    """A sub-model that keeps everything follows the whole model already."""
    whole = random_model(shape)
    torch.testing.assert_close(logits(recovered(whole, EVERYTHING)), logits(whole), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_the_last_stream_is_nearer_to_the_whole_models(seed: int) -> None:
    """On its own images the stream behind the last block follows the whole model's better than as cut."""
    whole, selection = random_model(SHAPE), pruned(seed)
    target = streams(whole)[-1]
    as_cut = float((streams(selection.cut(whole))[-1] - target).pow(2).sum())
    assert float((streams(recovered(whole, selection))[-1] - target).pow(2).sum()) < as_cut


@pytest.mark.parametrize("shape", [SHAPE, DISTILLED, CVT], ids=["plain", "distilled", "CVT"])
@pytest.mark.parametrize("seed", range(3))
def test_a_narrow_sub_model_has_logits_nearer_to_the_whole_models(seed: int, shape: Shape) -> None:
    """A sub-model of seven embed dims out of twelve answers more like the whole model than as cut."""
    whole, selection = random_model(shape), pruned(seed, width=7)
    as_cut = float((logits(selection.cut(whole)) - logits(whole)).pow(2).sum())
    assert float((logits(recovered(whole, selection)) - logits(whole)).pow(2).sum()) < as_cut


@pytest.mark.parametrize("shape", [SHAPE, CVT], ids=["plain", "CVT"])
def test_a_stream_of_few_directions_loses_nothing_when_narrowed(shape: Shape) -> None:
    """A whole model that writes to five directions, all of mean zero, is the same at a width of six.

    Norms of the stream itself have gains that are alike, as no others can be rotated.
    """
    whole = random_model(shape)
    zero_mean = torch.linalg.qr(torch.cat([torch.ones(12, 1), torch.randn(12, 5)], 1)).Q[:, 1:]
    onto = zero_mean @ zero_mean.T
    with torch.no_grad():
        layers: list[nn.Linear | nn.Conv2d] = [half.output_layer for half in all_halves(whole)]
        for layer in (whole.patch_embed.proj, *layers):
            assert layer.bias is not None
            layer.weight.copy_(torch.tensordot(onto, layer.weight, dims=1))
            layer.bias.copy_(onto @ layer.bias)
        for tokens in (*whole.prefix_tokens(), whole.pos_embed):
            tokens.copy_(tokens @ onto)
        for block in whole.blocks:
            assert isinstance(block, Block)
            if block.norm_is_between:
                block.norm2.weight.fill_(1.3)
                block.norm2.bias.copy_(onto @ block.norm2.bias)
    narrow = recovered(whole, Selection.of(EVERYTHING.heads, EVERYTHING.channels, range(6)))
    assert narrow.shape.embed_dim == 6
    torch.testing.assert_close(logits(narrow), logits(whole), rtol=1e-3, atol=1e-4)


def all_halves(model: VisionTransformer) -> list[HalfBlock]:
    """Return the half-blocks of a model in order of depth."""
    blocks = [block for block in model.blocks if isinstance(block, Block)]
    return [half for block in blocks for half in block.halves if half is not None]


def test_the_first_half_is_a_least_squares_fit() -> None:
    """In the first attention half neither layer could be better: the gradients of both errors vanish."""
    whole = random_model(SHAPE)
    selection = Selection.of([[1, 2], [0], [0]], [range(20)] * 3, range(12))
    sub_model = selection.cut(whole)
    reconstruct(sub_model, whole, selection, IMAGES, ridge=0.0, pooled_weight=1.0)
    half, whole_half = all_halves(sub_model)[0], all_halves(whole)[0]
    with torch.no_grad():
        x = whole.embed(IMAGES)
        inputs = half.layers.inner(half.normed(x)).flatten(0, 1).double()
        residual = (whole_half(x) - half(x)).flatten(0, 1).double()
        centred = inputs - inputs.mean(0)
        # Rows of Q, K and V of heads 1 and 2, three dims each.
        kept = [12 * part + row for part in range(3) for row in range(3, 9)]
        of_whole = whole_half.input_layer(whole_half.normed(x))[..., kept]
        torch.testing.assert_close(half.input_layer(half.normed(x)), of_whole, rtol=1e-4, atol=1e-5)
    assert residual.mean(0).abs().max() < 1e-6
    assert (centred.T @ residual).abs().max() < 1e-4 * centred.norm() * residual.norm()


@pytest.mark.parametrize("width", [12, 7], ids=["full", "narrow"])
def test_order_and_number_of_images_in_a_batch_do_not_matter(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """The same sub-model in one batch and in many."""
    whole, made = random_model(SHAPE), []
    for batch in (64, 5):
        monkeypatch.setattr("planner.network.reconstruction._BATCH", batch)
        monkeypatch.setattr("planner.network.principal_directions._BATCH", batch)
        made.append(logits(recovered(whole, pruned(1, width))))
    torch.testing.assert_close(made[0], made[1], rtol=1e-4, atol=1e-4)


def test_embeddings_stay_at_full_width() -> None:
    """At full width the patch embedding and the tokens are as cut; the whole model is untouched."""
    whole = random_model(SHAPE)
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    selection = pruned(2)
    as_cut = selection.cut(whole).state_dict()
    after = recovered(whole, selection).state_dict()
    same = {name for name, tensor in after.items() if torch.equal(tensor, as_cut[name])}
    assert same == {name for name in after if name.startswith("patch_embed") or "." not in name}
    assert all(torch.equal(tensor, before[name]) for name, tensor in whole.state_dict().items())


@pytest.mark.parametrize("width", [12, 7], ids=["full", "narrow"])
def test_norms_are_standardised(width: int) -> None:
    """What each norm gives to its layer has mean 0 and deviation 1 on the images, or does not vary at all."""
    whole, outputs = random_model(SHAPE), list[Tensor]()
    selection = Selection.of([[0, 1], [2], [3]], [range(9)] * 3, range(width))
    sub_model = selection.cut(whole)
    reconstruct(sub_model, whole, selection, IMAGES, pooled_weight=1.0)
    for half in all_halves(sub_model):
        assert half.norm is not None
        half.norm.register_forward_hook(lambda norm, inputs, output: outputs.append(output.flatten(0, 1)))
    sub_model.norm.register_forward_hook(lambda norm, inputs, output: outputs.append(output[:, 0]))
    logits(sub_model)
    assert len(outputs) == 7
    for output in outputs:
        assert output.mean(0).abs().max() < 1e-3
        torch.testing.assert_close(output.std(0, correction=0), torch.ones(width), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("width", [12, 2], ids=["full", "narrow"])
def test_one_image_and_empty_blocks_are_enough(width: int) -> None:
    """A sub-model with nothing but one head, from one image: finite, and nothing to refit elsewhere."""
    selection = Selection.of([[0], [], []], [[], [], []], range(width))
    sub_model = recovered(random_model(SHAPE), selection, IMAGES[:1])
    assert all(torch.isfinite(parameter).all() for parameter in sub_model.parameters())
    assert sum(block.attn is None for block in sub_model.blocks) == 2
