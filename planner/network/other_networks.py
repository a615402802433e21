"""Networks that are no plain ViT, recognised by the names of their tensors."""

import re
from collections.abc import Iterable

# By a name that only they have: what they are, and what to do.
_TELL_TALES = {
    r"lora_A|lora_B|adapter_": "holds adapters, not the network: merge them into it (merge_and_unload) and save that",
    r"layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table": "is a Swin Transformer, whose windows ours lacks",
    r"relative_position_bias_table|rel_pos_bias|relative_position_bias\.": "is a BEiT or another ViT with relative "
    "position biases, which ours lacks",
    r"rope|rotary|freqs_cos": "has rotary positions, as EVA and DINOv3, which ours lacks",
    r"attn\.q_norm|attention\.q_norm": "normalises queries and keys (qk-norm), which ours does not",
    r"mlp\.(w12|w1|w3|gate_proj|fc1_g|fc1_x|weights_in)\b": "has gated MLPs (SwiGLU), which ours lacks",
    r"pre_layrnorm|ln_pre": "is CLIP's vision tower as its own library or transformers write it: what loads is "
    "timm's, with a linear head",
    r"decoder_blocks|decoder_embed|decoder_pred": "is a masked autoencoder: fine-tune its encoder with a head layer "
    "first",
    r"^dinov2(_with_registers)?\.": "has a head layer over class token and mean of the "
    "patches side by side, as transformers' Dinov2ForImageClassification, where ours reads one of them",
    r"pre_logits|^heads\.pre_logits": "has a layer before its head layer (pre_logits), which ours lacks",
    r"attn_pool|attention_pool|probe$": "pools its tokens by attention, as SigLIP, which ours does not",
    r"tokenizer\.conv_layers|classifier\.attention_pool": "is a CCT, whose tokenizer ours lacks",
    r"^stages\.|downsample_layers": "is a ConvNeXt or another network of convolutions, not a ViT",
    r"^layer1\.\d+\.conv1|^conv1\.weight|^features\.\d+\.": "is a network of convolutions, not a ViT",
    r"^(student|teacher)\.": "holds a student and a teacher of self-supervised training: save one of them with a head "
    "layer",
}


def described(names: Iterable[str]) -> str | None:
    """Return what a checkpoint with these names is, and what to do, if it is a known network that ours is not."""
    names = list(names)
    for pattern, description in _TELL_TALES.items():
        found = re.compile(pattern)
        if any(found.search(name) for name in names):
            return description
    return None
