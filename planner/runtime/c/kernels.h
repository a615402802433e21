/* Kernels of the engine: products with weights, norms, activations, softmax.
 *
 * C99 and sqrtf; nothing is allocated, nothing is kept between calls. All buffers hold native floats and are aligned
 * as floats; those of one call do not overlap, unless it says so.
 */
#ifndef VIT_KERNELS_H
#define VIT_KERNELS_H

#include <stddef.h>

/* Outputs that lie side by side in a panel of weights; the generator of model.c has the same number. */
#define VIT_PANEL 32

/* Alignment of weights: on processors with vectors that of a line of the cache. */
#if defined(__GNUC__) && (defined(__SSE2__) || defined(__ARM_NEON))
#define VIT_ALIGNED __attribute__((aligned(64)))
#else
#define VIT_ALIGNED
#endif

/* Linear layer: outputs = scale * (weights inputs) + bias.
 *
 * Weights lie in panels of VIT_PANEL outputs, the last of what is left: for each input the panel's outputs follow one
 * another. They are int8_t with a scale for each output where there is a scale, else float.
 */
typedef struct {
    const void *weights;
    const float *scale; /* NULL: weights are float */
    const float *bias;  /* NULL: none */
    size_t in, out;
} vit_linear;

/* Layer norm; without a bias an RMS norm, which takes no mean away. */
typedef struct {
    const float *weight, *bias;
} vit_norm;

typedef enum { VIT_GELU, VIT_GELU_TANH, VIT_QUICK_GELU, VIT_RELU, VIT_SILU, VIT_SIGMOID } vit_activation;

/* Write, or add, a linear layer's outputs (rows, out) of inputs (rows, in).
 *
 * x_stride and y_stride: floats from one row to the next. add: 0 to write, 1 to add to what is there.
 */
void vit_linear_apply(const vit_linear *layer, size_t rows, const float *x, size_t x_stride, float *y, size_t y_stride,
                      int add);

/* Write the product (rows, out) of two matrices of floats, x (rows, in) and w (in, out), each without gaps. */
void vit_product(size_t rows, size_t in, size_t out, const float *x, const float *w, float *y);

/* Write the norm of n floats; x and y may be the same. */
void vit_norm_apply(const vit_norm *norm, float eps, size_t n, const float *x, float *y);

/* Apply an activation to n floats in place. */
void vit_activate(vit_activation activation, size_t n, float *x);

/* Replace n scores by their softmax. */
void vit_softmax(size_t n, float *x);

#endif
