/* Fusion: classifies from the features of all devices, side by side in the plan's order. */
#ifndef VIT_FUSION_H
#define VIT_FUSION_H

#include "kernels.h"

typedef struct {
    size_t num_devices;
    const size_t *num_features; /* of each device */
    const float *mean, *std;    /* of each feature */
    vit_linear fc1, fc2;
} vit_fusion;

/* Write the logits of the classes.
 *
 * present: a byte for each device, 0 if it did not answer: its features, which are not read, then count as their means.
 * arena: fc1.in + fc1.out floats, of which nothing is kept.
 */
void vit_fuse(const vit_fusion *fusion, const float *features, const unsigned char *present, float *logits,
              float *arena);

#endif
