/* One sub-model, a Vision Transformer, for one image at a time: from pixels as they are stored to features.
 *
 * Legend: N tokens, E embed dim, D head dim, C channels, H height, W width.
 */
#ifndef VIT_H
#define VIT_H

#include "kernels.h"

/* Block: attention of some heads and an MLP of some hidden channels; either half may be missing, with 0 of them. */
typedef struct {
    size_t heads, hidden;
    vit_norm attention_norm, mlp_norm;
    /* Of each head (D, E): all queries, then all keys, then all values; panels end with each head. The queries, or their
     * norm, are scaled by D^-1/2. */
    vit_linear qkv;
    /* Of each head (E, D). */
    vit_linear proj;
    /* Of fc1 (hidden), or (2 hidden): the gates of all channels, then their values. */
    vit_linear fc1, fc2;
} vit_block;

/* Convolutions before the patches, padded by half their kernel: each is followed by a GELU, or by a ReLU and a pooling
 * of 3 x 3 values that halves the sides. */
typedef struct {
    const vit_linear *convolutions; /* (count) */
    size_t count, kernel, stride;
    int has_max_pool;
} vit_stem;

/* Norms (D) that the queries and the keys of each head of a block have. */
typedef struct {
    vit_norm query, key;
} vit_head_norms;

typedef enum { VIT_UINT8, VIT_FLOAT32 } vit_dtype;

/* Image as it is sent, (C, H, W); the network's input is value * factor - offset, of each channel. */
typedef struct {
    vit_dtype dtype;
    size_t channels, height, width;
    const float *factor, *offset;
} vit_input;

typedef enum {
    VIT_FIRST_TOKENS,       /* mean of the first tokens behind the last norm */
    VIT_MEAN_OF_NORMALISED, /* mean of the patches behind the last norm */
    VIT_NORMALISED_MEAN,    /* last norm of the mean of the patches */
    VIT_WEIGHTED_MEAN       /* mean of the patches behind the last norm, weighted by a softmax of their scores */
} vit_pooling;

/* Weights of filters are in the order (height, width, channel). */
typedef struct {
    vit_input input;
    const vit_stem *stem;             /* NULL: none */
    size_t patch_height, patch_width; /* of what is projected: the image, or what the stem leaves of it */
    vit_linear patch;
    const float *tokens; /* (N, E): prefix tokens, and the projection's bias, each with its position embedding */
    size_t num_tokens, num_prefix, embed_dim, head_dim, num_blocks;
    const vit_norm *first_norm; /* before the blocks; NULL: none */
    const vit_block *blocks;    /* (num_blocks) */
    const vit_head_norms *head_norms; /* (num_blocks); NULL: none */
    int norm_between_halves; /* 1: the norm before an MLP is that of the stream itself, there in every block */
    vit_activation activation;
    vit_norm last_norm;
    vit_pooling pooling;
    const vit_linear *pool_scores; /* of each patch (1, E); NULL: none */
    size_t num_pooled; /* first tokens that are pooled */
    float eps;
    size_t tile;  /* tokens whose queries are in memory at once */
    size_t arena; /* floats that vit_features needs */
} vit_model;

/* Function that is called every now and then while an image is computed, so that a firmware with one thread can answer
 * or rest: after some tokens of a head, of an MLP, or of the embedding. */
typedef struct {
    void (*call)(void *context);
    void *context;
} vit_pause;

/* Write the features (E) of an image, which may lie at any address.
 *
 * arena: model->arena floats, of which nothing is kept. image, features and arena do not overlap.
 * pause: NULL if nothing is to be called.
 */
void vit_features(const vit_model *model, const void *image, float *features, float *arena, const vit_pause *pause);

#endif
