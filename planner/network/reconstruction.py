"""Layer-wise reconstruction after the cut: layers refitted in closed form, half-block after half-block.

A sub-model's residual stream s should follow the whole model's, f, or its projection R f where the sub-model is
narrower. First the stream of a narrower sub-model is laid along principal directions (`principal_directions`). Then, in
order of depth, each half-block is refitted by ridge regression:

1. Its input layer (qkv, fc1), so that queries, keys and values of the heads that are kept, or what enters the kept
   channels, are nearest to the whole model's.
2. Its output layer (proj, fc2), so that s after the half is nearest to R f after the same half of the whole model.

Where a norm of the stream lies between the halves, its gain and bias are refitted for the same end, each dim for
itself; where pooling has weights, their layer is refitted so that it gives the whole model's.

What a removal broke early is thus made up for by all that follows. The patches of one image are alike, so each fit to
many images looks at a part of their patches, at other places in each. At last the head layer is refitted: by least
squares so that logits follow the whole model's, and from there so that probabilities do, a convex problem. No step size
and no epochs: sums over some images.

Norms are standardised on the way: gain and bias are such that each of their outputs has mean 0 and deviation 1, and the
next layer takes that back, but for a norm of the stream, which more than a layer reads. The function is the same, but a
training that starts here is well conditioned: in a pretrained ViT a few dims of the stream are a hundred times as large
as the others.

Legend: B images, N tokens, E embed dim, b images of a batch, t tokens that a fit looks at, n inputs of a layer, m its
outputs.

Source:
    Reconstruction of a layer's output after pruning: He et al., arXiv 1707.06168; ThiNet, arXiv 1707.06342.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planner.network.compute_device import mixed_precision
from planner.network.data import Images
from planner.network.fitted_tokens import FittedTokens, take_tokens
from planner.network.half_blocks import Attention, HalfBlock
from planner.network.head_fit import fit_logits, fit_soft_targets
from planner.network.least_squares import RidgeRegression, RidgeRegressions
from planner.network.principal_directions import cut_along, principal_projection
from planner.network.surgery import Selection
from planner.network.vit import Block, VisionTransformer

RIDGE = 1e-3
# Weight of a token that a head layer reads, beside that of any other.
POOLED_WEIGHT = 4.0
_BATCH = 64


@torch.no_grad()
def reconstruct(
    sub_model: VisionTransformer,
    whole: VisionTransformer,
    selection: Selection,
    images: Images,
    ridge: float = RIDGE,
    pooled_weight: float = POOLED_WEIGHT,
) -> None:
    """Refit a sub-model's layers in place, so that its stream and its logits follow the whole model's.

    Args:
        sub_model: Sub-model as cut.
        whole: Model from which it was cut.
        selection: What it keeps of the whole model; of the embed dims only their number matters.
        images: Images that it should be right about, (B, ch, H, W).
        ridge: Penalty on changes, as a share of the inputs' mean variance.
        pooled_weight: Weight of a token that a head layer reads beside that of any other.
    """
    rows: Tensor | None = None
    if (width := len(selection.embed_dims)) < whole.shape.embed_dim:
        projection = principal_projection(whole, images, width, pooled_weight)
        narrow = cut_along(whole, selection.heads, selection.channels, projection)
        sub_model.load_state_dict(narrow.state_dict())
        rows = projection.rows
    batches = torch.arange(len(images)).split(_BATCH)
    tokens = FittedTokens(whole.shape, len(images), pooled_weight)
    streams, whole_streams = (_embedded(network, images) for network in (sub_model, whole))
    positions = [tokens.of_images(indices) for indices in batches]
    fit = _Fit(streams, whole_streams, rows, positions, tokens.weights, ridge, mixed_precision(whole))
    for l, (block, whole_block) in enumerate(zip(sub_model.blocks, whole.blocks, strict=True)):
        assert isinstance(block, Block)
        assert isinstance(whole_block, Block)
        (attention, mlp), (whole_attention, whole_mlp) = block.halves, whole_block.halves
        fit.refit_half(attention, whole_attention, selection.heads[l])
        if block.norm_is_between:
            fit.refit_norm(block.norm2, whole_block.norm2)
        fit.refit_half(mlp, whole_mlp, selection.channels[l])
    if whole.shape.pooling == "sequence":
        fit.refit_pooling(sub_model, whole)
    _refit_heads(sub_model, whole, streams, whole_streams)


def _embedded(network: VisionTransformer, images: Images) -> Sequence[Tensor]:
    """Return the streams before the first block, batches (b, N, E) that lie in memory one after the other."""
    streams = torch.empty(len(images), network.shape.num_tokens, network.shape.embed_dim)
    batches: tuple[Tensor, ...] = streams.split(_BATCH)
    for x, indices in zip(batches, torch.arange(len(images)).split(_BATCH), strict=True):
        x.copy_(network.embed(images[indices]))
    return batches


@dataclass(frozen=True, eq=False)
class _Fit:
    """Least-squares fits along the residual streams of a sub-model and of the whole model."""

    streams: Sequence[Tensor]  # batches (b, N, E'), each where the half-block that is next begins
    whole_streams: Sequence[Tensor]  # (b, N, E)
    rows: Tensor | None  # projection of the stream; None where it keeps its width
    positions: Sequence[Tensor]  # (b, t) for each batch, of the tokens that are looked at
    weights: Tensor  # (t,), of each of them
    ridge: float
    precision: torch.autocast  # of half-blocks; sums are in double precision

    def refit_half(self, half: HalfBlock | None, whole: HalfBlock | None, kept: Sequence[int]) -> None:
        """Refit a half-block that keeps some units of the whole model's, and take both streams through."""
        if half is not None and whole is not None:
            self._refit_inputs(half, whole, whole.layers.input_rows(kept))
        if whole is not None:
            self._advance(self.whole_streams, whole)
        if half is not None:
            self._refit_outputs(half)
            self._advance(self.streams, half)

    def _refit_inputs(self, half: HalfBlock, whole: HalfBlock, kept_rows: Sequence[int]) -> None:
        """Refit an input layer, so that its outputs are nearest to those of the whole model's kept rows."""
        # The targets are linear in what the whole model's layer reads, of which there are far fewer.
        layer = whole.input_layer
        regression = RidgeRegression(half.input_layer, (layer.weight[kept_rows], layer.bias[kept_rows]))
        for x, whole_x in self._tokens():
            self._add(regression, half.normed(x), whole.normed(whole_x))
        regression.solve(self.ridge)
        if half.norm is not None:
            _standardise(half.norm, [half.input_layer], *regression.input_moments())

    def _refit_outputs(self, half: HalfBlock) -> None:
        """Refit an output layer, so that the stream after it is nearest to the whole model's, which is there."""
        regression = RidgeRegression(half.output_layer)
        for x, (taken, whole_taken), positions in zip(self.streams, self._tokens(), self.positions, strict=True):
            with self.precision:
                inner = _inner(half, x, positions)
            self._add(regression, inner, self._projected(whole_taken) - taken)
        regression.solve(self.ridge)

    def refit_norm(self, norm: nn.LayerNorm, whole_norm: nn.LayerNorm) -> None:
        """Refit a norm of the stream, each dim for itself, and take both streams through."""
        regression = RidgeRegressions(norm.weight, norm.bias)
        for x, whole_x in self._tokens():
            standard = F.layer_norm(x, norm.normalized_shape, eps=norm.eps)
            self._add(regression, standard, self._projected(whole_norm(whole_x)))
        regression.solve(self.ridge)
        self._advance(self.streams, norm)
        self._advance(self.whole_streams, whole_norm)

    def refit_pooling(self, sub_model: VisionTransformer, whole: VisionTransformer) -> None:
        """Refit the layer that says what each token weighs, so that it gives the whole model's scores."""
        regression = RidgeRegression(sub_model.attention_pool)
        for x, whole_x in self._tokens():
            self._add(regression, sub_model.norm(x), whole.attention_pool(whole.norm(whole_x)))
        regression.solve(self.ridge)

    def _advance(self, streams: Sequence[Tensor], step: HalfBlock | nn.LayerNorm) -> None:
        """Take streams (b, N, E) a step further, in place: new ones among the old would leave memory in pieces."""
        for x in streams:
            with self.precision:
                x.copy_(step(x))

    def _tokens(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the tokens that are looked at in both streams, (b, t, E') and (b, t, E), batch after batch."""
        for x, whole_x, positions in zip(self.streams, self.whole_streams, self.positions, strict=True):
            yield take_tokens(x, positions), take_tokens(whole_x, positions)

    def _projected(self, whole_x: Tensor) -> Tensor:
        """Return tokens of the whole model's stream as the sub-model's should be."""
        return whole_x if self.rows is None else whole_x @ self.rows.T

    def _add(self, regression: RidgeRegression | RidgeRegressions, inputs: Tensor, targets: Tensor) -> None:
        """Add inputs (b, t, n) and targets (b, t, m) to a regression."""
        regression.add(inputs.flatten(0, 1), targets.flatten(0, 1), self.weights.repeat(len(inputs)))


def _inner(half: HalfBlock, x: Tensor, positions: Tensor) -> Tensor:
    """Return what the output layer reads at some tokens (b, t) of the stream, (b, t, n)."""
    if isinstance(half.layers, Attention):
        # Each token sees all.
        return take_tokens(half.layers.inner(half.normed(x)), positions)
    return half.layers.inner(half.normed(take_tokens(x, positions)))


def _standardise(norm: nn.LayerNorm, layers: Sequence[nn.Linear], mean: Tensor, std: Tensor) -> None:
    """Let a norm's outputs, which have this mean and deviation, have 0 and 1, and the next layers take that back."""
    norm.bias.copy_((norm.bias - mean) / std)
    norm.weight.div_(std)
    for layer in layers:
        layer.bias.add_(layer.weight @ mean.to(layer.weight))
        layer.weight.mul_(std)


def _refit_heads(
    sub_model: VisionTransformer,
    whole: VisionTransformer,
    streams: Sequence[Tensor],
    whole_streams: Sequence[Tensor],
) -> None:
    """Refit each head layer so that its logits, then its probabilities, follow those of the whole model's."""
    heads = [(sub_model.head, whole.head)]
    if sub_model.shape.distilled:
        heads.append((sub_model.head_dist, whole.head_dist))
    pooled = torch.cat([sub_model.pool(x) for x in streams])  # (B, P, E)
    whole_pooled = torch.cat([whole.pool(x) for x in whole_streams])
    inputs = list(pooled.unbind(1))
    targets = [head(tokens) for (_, head), tokens in zip(heads, whole_pooled.unbind(1), strict=True)]
    fits = [fit_logits(head, x, y) for (head, _), x, y in zip(heads, inputs, targets, strict=True)]
    mean, std = fits[0].input_moments()
    _standardise(sub_model.norm, sub_model.last_layers, mean, std)
    for (head, _), x, y in zip(heads, inputs, targets, strict=True):
        fit_soft_targets(head, (x - mean) / std, y)
