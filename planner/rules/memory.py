"""Memory of a sub-model: weights, and activations at their peak, by the engine that runs it.

    weights     = fixed + sum_l (head[l] h_l + channel[l] c_l)
    activations = fixed + max(least, max_l max(head h_l, channel c_l))

Where a device has a storage budget, weights count as flash, else as RAM; activations are RAM.

Legend: L blocks, h_l kept heads and c_l kept hidden channels of block l.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from planner.rules.c_memory import CSizes, c_activations, c_weights
from planner.rules.links import rational
from planner.schema import BYTES_PER_PARAM, Engine, Precision, Profile, Width
from planner.schema.architecture import qk_norm_size
from planner.schema.profile import PatchEmbedding


@dataclass(frozen=True)
class WeightBytes:
    """Bytes of the weights: those that every sub-model has, and those of a head and of a channel of each block (L,)."""

    fixed: int
    head: tuple[int, ...]
    channel: tuple[int, ...]

    def total(self, heads: Sequence[int], channels: Sequence[int]) -> int:
        """Return the bytes of a sub-model's weights."""
        blocks = zip(self.head, heads, self.channel, channels, strict=True)
        return self.fixed + sum(a * h + b * c for a, h, b, c in blocks)


@dataclass(frozen=True)
class ActivationBytes:
    """Bytes of activations: always alive, and of the largest half-block by its heads or channels, `least` at least."""

    fixed: Fraction
    least: Fraction
    head: Fraction
    channel: Fraction

    def peak(self, heads: Sequence[int], channels: Sequence[int]) -> Fraction:
        """Return the peak activations [bytes] of a sub-model."""
        halves = (max(self.head * h, self.channel * c) for h, c in zip(heads, channels, strict=True))
        return self.fixed + max(self.least, *halves)


@dataclass(frozen=True)
class MemoryModel:
    """Memory of the sub-models of one embed dim and precision in one engine."""

    weights: WeightBytes
    activations: ActivationBytes


def memory_model(profile: Profile, width: Width, precision: Precision, engine: Engine) -> MemoryModel:
    """Return the memory of sub-models of a width and precision in an engine.

    Raises:
        InputError: If the engine does not have the precision.
    """
    return c_memory(profile, width, precision) if engine == "c" else onnxruntime_memory(width, precision)


def onnxruntime_memory(width: Width, precision: Precision) -> MemoryModel:
    """Return the memory of sub-models in ONNX Runtime, as the profile states it."""
    each, head, channel = BYTES_PER_PARAM[precision], width.head_padding_bytes, width.channel_padding_bytes
    return MemoryModel(
        WeightBytes(
            width.fixed_params * each,
            tuple(params * each + head for params in width.head_params),
            tuple(params * each + channel for params in width.channel_params),
        ),
        ActivationBytes(
            rational(width.fixed_activation_bytes),
            Fraction(0),
            rational(width.head_activation_bytes),
            rational(width.channel_activation_bytes),
        ),
    )


def c_memory(profile: Profile, width: Width, precision: Precision) -> MemoryModel:
    """Return the memory of sub-models in the C engine: constants, and the arena with an image and features beside it.

    A half that a block lacks is counted all the same: too much, never too little.

    Raises:
        InputError: If the engine does not have the precision.
    """
    sizes, depth = c_profile_sizes(profile, width.embed_dim), profile.depth
    weights, arena = c_weights(sizes, depth, precision), c_activations(sizes, has_heads=profile.num_heads > 0)
    messages = profile.input_bytes + profile.feature_bytes_per_embed_dim * width.embed_dim
    return MemoryModel(
        WeightBytes(weights.fixed, (weights.per_head,) * depth, (weights.per_channel,) * depth),
        ActivationBytes(
            Fraction(arena.fixed + messages), Fraction(arena.least), Fraction(0), Fraction(arena.per_channel)
        ),
    )


def c_profile_sizes(profile: Profile, embed_dim: int) -> CSizes:
    """Return the sizes that the C engine's memory depends on, as the profile states or implies them."""
    embedding = profile.embedding or _implied_embedding(profile)
    return CSizes(
        num_tokens=profile.num_tokens,
        embed_dim=embed_dim,
        head_dim=profile.head_dim,
        stem=embedding.stem,
        image_sides=embedding.image_size,
        patch_sides=embedding.patch_size,
        norm_before_blocks=embedding.norm_before_blocks,
        rows_per_channel=1 + profile.gated_mlp,
        qk_norm_size=qk_norm_size(profile.qk_norm, profile.head_dim),
        norm_between_halves=profile.norm_between_halves,
        has_sequence_pooling=profile.has_sequence_pooling,
    )


def _implied_embedding(profile: Profile) -> PatchEmbedding:
    """Return the embedding of an older profile: all tokens but one are patches, and all values of the image in them."""
    num_patches = max(1, profile.num_tokens - 1)
    values = -(-profile.input_bytes // num_patches)
    channels = 3 if values % 3 == 0 else 1
    patch = (1, values // channels)
    return PatchEmbedding(channels=(channels,), image_size=(num_patches, patch[1]), patch_size=patch)
