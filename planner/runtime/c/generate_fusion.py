"""Generator of a fusion in C: fusion_model.h and fusion_model.c, with the weights as constants."""

from planner.network.fusion import Fusion
from planner.runtime.c.constants import Constants

_HEADER = """\
/* Fusion of the features of {num_devices} devices, generated: its weights are constants in fusion_model.c. */
#ifndef FUSION_MODEL_H
#define FUSION_MODEL_H

#include "fusion.h"

#define FUSION_NUM_DEVICES {num_devices}
#define FUSION_NUM_FEATURES {num_features}
#define FUSION_NUM_CLASSES {num_classes}
#define FUSION_ARENA_BYTES {arena_bytes}

/* Write FUSION_NUM_CLASSES logits of the features of all devices, side by side in the plan's order.
 *
 * present: a byte for each device, 0 if it did not answer; its features are then not read. arena: FUSION_ARENA_BYTES
 * bytes, aligned as floats, of which nothing is kept. */
void fusion_infer(const float *features, const unsigned char *present, float *logits, void *arena);

#endif
"""

_SOURCE = """\
#include "fusion_model.h"

{constants}
static const size_t num_features[] = {{{embed_dims}}};

static const vit_fusion fusion = {{
    .num_devices = FUSION_NUM_DEVICES,
    .num_features = num_features,
    .mean = mean,
    .std = std,
    .fc1 = {fc1},
    .fc2 = {fc2},
}};

void fusion_infer(const float *features, const unsigned char *present, float *logits, void *arena)
{{
    vit_fuse(&fusion, features, present, logits, arena);
}}
"""
_FLOAT_BYTES = 4


def fusion_files(fusion: Fusion) -> dict[str, str]:
    """Return the text of fusion_model.h and fusion_model.c; its weights are float32.

    Raises:
        InputError: If a weight is not finite.
    """
    arrays = {name: tensor.detach().float().cpu().numpy() for name, tensor in fusion.state_dict().items()}
    constants = Constants("float32")
    constants.floats("mean", arrays["mean"])
    constants.floats("std", arrays["std"])
    fc1, fc2 = (constants.linear(layer, arrays[f"{layer}.weight"], arrays[f"{layer}.bias"]) for layer in ("fc1", "fc2"))
    hidden, num_features = arrays["fc1.weight"].shape
    header = _HEADER.format(
        num_devices=len(fusion.embed_dims),
        num_features=num_features,
        num_classes=len(arrays["fc2.bias"]),
        arena_bytes=(num_features + hidden) * _FLOAT_BYTES,
    )
    embed_dims = ", ".join(map(str, fusion.embed_dims))
    source = _SOURCE.format(constants=constants.text, embed_dims=embed_dims, fc1=fc1, fc2=fc2)
    return {"fusion_model.h": header, "fusion_model.c": source}
