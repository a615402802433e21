#include "fusion.h"

void vit_fuse(const vit_fusion *fusion, const float *features, const unsigned char *present, float *logits,
              float *arena)
{
    float *standardised = arena, *hidden = arena + fusion->fc1.in;
    size_t i = 0;
    for (size_t device = 0; device < fusion->num_devices; device++)
        for (const size_t end = i + fusion->num_features[device]; i < end; i++)
            standardised[i] = present[device] ? (features[i] - fusion->mean[i]) / fusion->std[i] : 0.0f;
    vit_linear_apply(&fusion->fc1, 1, standardised, fusion->fc1.in, hidden, fusion->fc1.out, 0);
    vit_activate(VIT_GELU, fusion->fc1.out, hidden);
    vit_linear_apply(&fusion->fc2, 1, hidden, fusion->fc2.in, logits, fusion->fc2.out, 0);
}
