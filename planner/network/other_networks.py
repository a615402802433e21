"""Networks that are no plain ViT, recognised by the names of their tensors and by what a config says."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from planner.network.model_config import ModelConfig

# By a name that only they have: what they are, and what to do.
_TELL_TALES = {
    r"lora_A|lora_B|adapter_": "holds adapters, not the network: merge them into it (merge_and_unload) and save that",
    r"layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table": "is a Swin Transformer, whose windows ours lacks",
    r"relative_position_bias_table|rel_pos_bias|relative_position_bias\.": "is a BEiT or another ViT with relative "
    "position biases, which ours lacks",
    r"rel_pos_[hw]|decomposed_rel_pos": "is a SAM or an MViT, with relative positions, which ours lacks",
    r"rope|rotary|freqs_cos": "has rotary positions, as EVA and DINOv3, which ours lacks",
    r"(mlp|attn)\.(norm|ffn_ln|inner_attn_ln)\.": "has norms within its halves (sub-LN), as EVA-02 and BEiT-3, over "
    "all units together, so that none can be removed without the others' changing",
    r"attn_out_proj|\.attns\.\d|\.ffns\.\d": "has attention and MLP side by side (parallel blocks), which ours has one "
    "after the other",
    r"blocks_token_only|\.proj_l\.|\.proj_w\.": "is a CaiT, whose heads talk to each other",
    r"patch_embed\.backbone|embeddings\.patch_embeddings\.backbone": "is a hybrid, with a network of "
    "convolutions before its patches",
    r"^embeds\.(proj|pos_embed)": "is a NaFlexViT, for images of any shape: ours has one",
    r"pre_layrnorm|ln_pre": "is CLIP's vision tower as its own library or transformers write it: what loads is "
    "timm's, with a linear head",
    r"decoder_blocks|decoder_embed|decoder_pred": "is a masked autoencoder: fine-tune its encoder with a head layer "
    "first",
    r"^dinov2(_with_registers)?\.": "has a head layer over class token and mean of the "
    "patches side by side, as transformers' Dinov2ForImageClassification, where ours reads one of them",
    r"pre_logits|^heads\.pre_logits": "has a layer before its head layer (pre_logits), which ours lacks",
    r"attn_pool|probe$": "pools its tokens by attention, as SigLIP, which ours does not",
    r"^embedder\.|tokenizer\.conv_layers\.\d+\.weight": "is a Compact Transformer of texts, which have no pixels",
    r"^stages\.|downsample_layers": "is a ConvNeXt or another network of convolutions, not a ViT",
    r"^layer1\.\d+\.conv1|^conv1\.weight|^features\.\d+\.": "is a network of convolutions, not a ViT",
    r"^(student|teacher)\.": "holds a student and a teacher of self-supervised training: save one of them with a head "
    "layer",
}
# Names that timm's EVA has in common with BEiT alone.
_EVA = re.compile(r"attn\.(q_bias|q_proj\.weight)$")


def described(names: Iterable[str], config: ModelConfig | None) -> str | None:
    """Return what a checkpoint with these names is, and what to do, if it is a known network that ours is not.

    Args:
        names: Names of its tensors.
        config: What the config.json beside it says.
    """
    names = list(names)
    for pattern, description in _TELL_TALES.items():
        found = re.compile(pattern)
        if any(found.search(name) for name in names):
            return description
    has_rotary_positions = None if config is None else config.has_rotary_positions
    if has_rotary_positions:
        return "has rotary positions, as its config.json says, which ours lacks"
    if has_rotary_positions is None and "pos_embed" in names and any(_EVA.search(name) for name in names):
        return (
            "has the names of timm's EVA, whose rotary positions leave no trace in the weights, and which ours lacks; "
            'if it has none, say so in a config.json beside it: {"pretrained_cfg": {}, "model_args": '
            '{"use_rot_pos_emb": false}}'
        )
    return None


def norms_described(tensors: Mapping[str, Tensor]) -> str | None:
    """Return what is the matter with the norms of a checkpoint, whose tensors have our names, if ours cannot have them.

    They must be layer norms; queries and keys are normalised head by head.
    """
    if "blocks.0.norm1.weight" in tensors and "blocks.0.norm1.bias" not in tensors:
        return "has norms without a bias, as RMSNorm, where ours are LayerNorm with one"
    weight, qkv = tensors.get("blocks.0.attn.q_norm.weight"), tensors.get("blocks.0.attn.qkv.weight")
    if weight is not None and qkv is not None and 3 * weight.numel() == len(qkv):
        return (
            "normalises the queries of all heads together, and keys likewise, so that no head can be removed without "
            "the others' changing"
        )
    return None
