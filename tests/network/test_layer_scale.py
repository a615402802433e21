"""LayerScale is folded into the layers before it: equal logits, and no tensor left over."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from planner.errors import InputError
from planner.network.checkpoint import load_model
from planner.network.layer_scale import fold_layer_scale
from planner.network.vit import Shape, VisionTransformer
from tests.helpers.checkpoints import import_with
from tests.helpers.plain_vit import random_images, random_model

SHAPE = Shape(
    image_size=12,
    patch_size=4,
    in_channels=3,
    num_classes=5,
    embed_dim=12,
    head_dim=3,
    num_heads=(4, 4),
    hidden_dim=(20, 20),
)


def factors_of(model: VisionTransformer, seed: int) -> dict[str, Tensor]:
    """Return random LayerScale factors under timm's names."""
    generator = torch.Generator().manual_seed(seed)
    names = [f"blocks.{l}.ls{half}.gamma" for l in range(model.shape.depth) for half in (1, 2)]
    return {name: torch.rand(model.shape.embed_dim, generator=generator) * 0.1 for name in names}


def unfolded_logits(model: VisionTransformer, factors: dict[str, Tensor], images: Tensor) -> Tensor:
    """Return the logits of a network that multiplies what each half-block adds, as LayerScale defines it."""
    hooks = []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name.endswith(("attn.proj", "mlp.fc2")):
            block, half = name.split(".")[1], 1 if name.endswith("attn.proj") else 2
            gamma = factors[f"blocks.{block}.ls{half}.gamma"]
            hooks.append(layer.register_forward_hook(lambda module, inputs, output, gamma=gamma: output * gamma))
    with torch.no_grad():
        logits: Tensor = model(images)
    for hook in hooks:
        hook.remove()
    return logits


@pytest.mark.parametrize("seed", range(3))
def test_folded_and_unfolded_give_equal_logits(tmp_path: Path, seed: int) -> None:
    """An imported checkpoint with LayerScale answers as the network that multiplies."""
    model = random_model(SHAPE)
    factors, images = factors_of(model, seed), random_images(SHAPE, 4)
    save_file(model.state_dict() | factors, tmp_path / "a.safetensors")
    card = import_with(tmp_path / "a.safetensors", tmp_path / "mine", num_heads=4)
    assert "4 LayerScale factors are folded" in card.description
    with torch.no_grad():
        logits = load_model(str(tmp_path / "mine" / "card.json"))[1](images)
    torch.testing.assert_close(logits, unfolded_logits(model, factors, images), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(logits, model(images), atol=1e-3)


def test_a_checkpoint_without_factors_is_left_as_it_is() -> None:
    """Nothing is folded where there is nothing to fold."""
    state = random_model(SHAPE).state_dict()
    folded, num_factors = fold_layer_scale(Path("a.pth"), state, {})
    assert num_factors == 0
    assert folded.keys() == state.keys()
    assert all(folded[name] is state[name] for name in state)


@pytest.mark.parametrize("wrong", [torch.ones(11), torch.ones(12, 1), torch.ones(())])
def test_a_factor_of_another_size_is_refused(wrong: Tensor) -> None:
    """The sentence names the layer, the factor and both sizes."""
    state = random_model(SHAPE).state_dict() | {"blocks.1.ls2.gamma": wrong}
    with pytest.raises(InputError, match=r"'blocks.1.mlp.fc2.weight' must have a row for each of the"):
        fold_layer_scale(Path("a.pth"), state, {})


def test_a_factor_of_a_block_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A factor needs a layer to be folded into."""
    save_file(random_model(SHAPE).state_dict() | {"blocks.7.ls1.gamma": torch.ones(12)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"'blocks.7.attn.proj.weight' must have a row .* got none"):
        import_with(tmp_path / "a.safetensors", tmp_path / "mine", num_heads=4)
