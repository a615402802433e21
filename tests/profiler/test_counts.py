"""Counts of fvcore, torch and the closed form agree to the last MAC and parameter."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from planner.errors import PlannerError
from planner.network import audit as auditing
from planner.network import counts
from planner.network.audit import audit
from planner.network.counts import Counts
from planner.network.half_blocks import Mlp
from planner.network.vit import Shape, VisionTransformer
from planner.schema.architecture import Activation

DIGITS = Shape(8, 2, 1, 10, embed_dim=64, head_dim=16, num_heads=(4,) * 4, hidden_dim=(256,) * 4)
TINY = Shape(224, 16, 3, 1000, embed_dim=192, head_dim=64, num_heads=(3,) * 12, hidden_dim=(768,) * 12)
SMALL = Shape(4, 2, 1, 3, embed_dim=8, head_dim=4, num_heads=(2, 1), hidden_dim=(3, 5))


def count(shape: Shape) -> Counts:
    """Return fvcore's count of a network of this shape."""
    return auditing.count(VisionTransformer(shape).eval())


def torch_macs(shape: Shape) -> tuple[int, int]:
    """Return torch's count of MACs with norms added, and the MACs that are neither linear nor convolution.

    On the meta device the counter sees attention as the two matrix products it is. On a real
    device it drops the fused kernel without a word: that is why this runs on meta. It counts
    FLOPs, two for a MAC, and no layer norms: 5 MACs per element are added, as fvcore has it.
    """
    with torch.device("meta"):
        model = VisionTransformer(shape).eval()
        image = torch.zeros(1, shape.in_channels, *shape.image_sides)
    norm_elements = []
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_hook(lambda _module, _args, out: norm_elements.append(out.numel()))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    flops = {str(operator): value for operator, value in counter.get_flop_counts()["Global"].items()}
    plain = {"aten.convolution", "aten.addmm", "aten.mm"}
    attention = sum(value for name, value in flops.items() if name not in plain)
    return counter.get_total_flops() // 2 + 5 * sum(norm_elements), attention // 2


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Draw small networks, emptied halves and blocks included."""
    depth = draw(st.integers(1, 3))
    patch = draw(st.integers(1, 3))
    sizes = [draw(st.lists(st.integers(0, limit), min_size=depth, max_size=depth)) for limit in (3, 9)]
    return Shape(
        image_size=patch * draw(st.integers(1, 3)),
        patch_size=patch,
        in_channels=draw(st.integers(1, 3)),
        num_classes=draw(st.integers(1, 5)),
        embed_dim=draw(st.integers(1, 12)),
        head_dim=draw(st.integers(1, 5)),
        num_heads=tuple(sizes[0]),
        hidden_dim=tuple(sizes[1]),
    )


@pytest.mark.parametrize("shape", [DIGITS, TINY, SMALL], ids=["digits-vit", "vit-tiny", "small"])
def test_three_counters_agree(shape: Shape) -> None:
    """fvcore on a real network, torch on a meta network and the closed form give the same MACs."""
    expected = counts.exact(shape)
    assert count(shape) == expected
    assert torch_macs(shape)[0] == expected.macs


@settings(max_examples=30, deadline=None)
@given(shapes())
def test_three_counters_agree_on_pruned_shapes(shape: Shape) -> None:
    """The counters agree on any shape, also on blocks without heads, channels or both."""
    expected = counts.exact(shape)
    assert count(shape) == expected
    assert torch_macs(shape)[0] == expected.macs


@pytest.mark.parametrize("shape", [DIGITS, TINY, SMALL], ids=["digits-vit", "vit-tiny", "small"])
def test_torch_really_counts_attention(shape: Shape) -> None:
    """Beside linear layers and convolution, torch counts Q K^T and its product with V for each head."""
    N = shape.num_tokens
    assert torch_macs(shape)[1] == sum(shape.num_heads) * 2 * N * N * shape.head_dim > 0


def test_vit_tiny_is_the_published_one() -> None:
    """ViT-Tiny at 224 has 1.258 GMACs and 5.72 M parameters."""
    tiny = count(TINY)
    assert round(tiny.macs / 1e9, 3) == 1.258
    assert round(tiny.params / 1e6, 2) == 5.72


@pytest.mark.parametrize(
    ("embed_dim", "heads", "depth", "gmacs"),
    [(192, 3, 12, "1.258"), (384, 6, 12, "4.608"), (768, 12, 12, "17.58"), (1024, 16, 24, "61.60")],
)
def test_closed_form_gives_the_known_sizes(embed_dim: int, heads: int, depth: int, gmacs: str) -> None:
    """The closed form gives the known GMACs of ViT-Tiny, Small, Base and Large at 224, to four digits."""
    shape = Shape(224, 16, 3, 1000, embed_dim, 64, (heads,) * depth, (4 * embed_dim,) * depth)
    assert f"{counts.exact(shape).macs / 1e9:#.4g}" == gmacs


def test_closed_form_by_hand() -> None:
    """For one head and one channel in one block, every term can be written down.

    N = 2 tokens (one patch of 1 pixel), E = 3, hd = 2, C = 2:
    patch 1*1*3 = 3; norms 5*2*3 twice and 5*3 = 75; QKV 2*3*6 = 36; attention 2*2*2*2 = 16;
    projection 2*2*3 = 12; MLP 2*3*1 twice = 12; head layer 3*2 = 6: 160 MACs.
    patch 6, class token 3, positions 6, three norms 18, QKV 24, projection 9, fc1 4, fc2 6, head layer 8: 84.
    """
    assert counts.exact(Shape(1, 1, 1, 2, 3, 2, (1,), (1,))) == Counts(macs=160, params=84)


def test_gates_and_norms_of_queries_by_hand() -> None:
    """A gate is one more row of fc1: 2*3*1 = 6 MACs, 3 weights and a bias in `test_closed_form_by_hand`.

    Norms of queries and keys have 5*2*2 = 20 MACs each; parameters are a weight and a bias for each of 2 dims, twice.
    """
    plain = Shape(1, 1, 1, 2, 3, 2, (1,), (1,))
    assert counts.exact(replace(plain, gated_mlp=True)) == Counts(macs=160 + 6, params=84 + 4)
    assert counts.exact(replace(plain, qk_norm="layer_norm")) == Counts(macs=160 + 2 * 20, params=84 + 8)
    assert counts.exact(replace(plain, qk_norm="rms_norm")) == Counts(macs=160 + 2 * 20, params=84 + 4)


def test_missing_halves_are_counted() -> None:
    """Of three blocks, one without heads, one without channels and one without both lack four halves.

    Each is a norm of 2 x 3 elements, 5 MACs each, with 6 parameters, and an output bias of 3; two of them are attention
    with LayerNorms of 2 dims for queries and keys, 8 parameters more.
    """
    shape = Shape(1, 1, 1, 2, 3, 2, (0, 1, 0), (1, 0, 0))
    assert counts.of_missing_halves(shape) == Counts(macs=4 * 30, params=4 * 9)
    assert counts.of_missing_halves(replace(shape, qk_norm="layer_norm")) == Counts(macs=4 * 30, params=4 * 9 + 2 * 8)


@pytest.mark.parametrize("shape", [DIGITS, SMALL], ids=["digits-vit", "small"])
def test_audit_adds_up(shape: Shape) -> None:
    """The fixed part, every head and every channel add up to the whole, and each equals the closed form."""
    fixed, head, channel = audit(shape)
    assert fixed + head * sum(shape.num_heads) + channel * sum(shape.hidden_dim) == counts.exact(shape)
    assert (fixed, head, channel) == (counts.fixed(shape), counts.per_head(shape), counts.per_channel(shape))


@pytest.mark.parametrize(
    ("name", "operator"),
    [("aten::cumsum", lambda x: x.cumsum(-1)), ("aten::fft_fft", lambda x: torch.fft.fft(x).real)],
)
def test_an_operator_that_fvcore_does_not_know_is_an_error(
    monkeypatch: pytest.MonkeyPatch, name: str, operator: Callable[[Tensor], Tensor]
) -> None:
    """A network with an uncounted operator is refused, and the operator named."""
    original = Mlp.forward
    monkeypatch.setattr(Mlp, "forward", lambda self, x, gate=None: operator(original(self, x, gate)))
    with pytest.raises(PlannerError, match=f"fvcore does not know .*{name}"):
        count(SMALL)


def test_counts_that_differ_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """When fvcore and the closed form differ, the message shows both counts."""
    monkeypatch.setattr(counts, "NORM_MACS_PER_ELEMENT", 4)
    with pytest.raises(PlannerError, match=r"fvcore counts Counts\(macs=\d+, .*closed form .* must agree"):
        count(SMALL)


def test_a_parameter_too_many_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter that costs no MAC is an error as well."""
    original = Mlp.__init__

    def with_scale(self: Mlp, embed_dim: int, hidden_dim: int, activation: Activation, is_gated: bool) -> None:
        original(self, embed_dim, hidden_dim, activation, is_gated)
        self.scale = nn.Parameter(torch.ones(embed_dim))

    monkeypatch.setattr(Mlp, "__init__", with_scale)
    with pytest.raises(PlannerError, match="must agree"):
        count(SMALL)


def test_a_cost_that_is_not_a_sum_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """When heads and channels do not add up to the whole, the audit fails."""
    original = auditing.count
    monkeypatch.setattr(auditing, "count", lambda model: original(model) + Counts(sum(model.shape.num_heads) ** 2, 0))
    with pytest.raises(PlannerError, match="does not add up"):
        audit(DIGITS)
