#include "kernels.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && defined(__AVX__)
#include <immintrin.h>
#elif defined(__GNUC__) && defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#if defined(__GNUC__)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define ALWAYS_INLINE inline
#endif

/* Inputs that are multiplied before the next chunk's turn: of so many, a panel's weights (32 KiB) stay in the cache. */
#define CHUNK 256

/* Matrix product, x (rows, in) times w (in, columns); rows of w are w_stride apart. */
typedef struct {
    const float *x;
    size_t x_stride;
    const void *w;
    size_t w_stride, in;
    float *y;
    size_t y_stride;
    const float *scale, *bias; /* of each column; NULL: none */
    int add;
} product;

#define PASTE(a, b, c) a##_##b##_##c
#define JOIN(a, b, c) PASTE(a, b, c)

/* A vector of one float: what is left of wider ones, and all there is on a processor without vectors. */
typedef float vector_1_float;
static ALWAYS_INLINE float load_1_float(const float *p) { return *p; }
static ALWAYS_INLINE float load_1_int8_t(const int8_t *p) { return (float)*p; }
static ALWAYS_INLINE void store_1_float(float *p, float value) { *p = value; }
/* Weights of float have no scale. */
static ALWAYS_INLINE float scaled_1_float(float sum, float scale) { return (void)scale, sum; }
static ALWAYS_INLINE float scaled_1_int8_t(float sum, float scale) { return sum * scale; }

/* Wider vectors are those of GCC and Clang: C without intrinsics, but for int8_t where these compilers know no short way
 * to float. */
#define DEFINE_VECTOR(LANES)                                                                                           \
    typedef float vector_##LANES##_float __attribute__((vector_size(4 * LANES)));                                      \
    typedef float floats_##LANES __attribute__((vector_size(4 * LANES), aligned(4), may_alias));                       \
    static ALWAYS_INLINE vector_##LANES##_float load_##LANES##_float(const float *p)                                   \
    {                                                                                                                  \
        return *(const floats_##LANES *)p;                                                                             \
    }                                                                                                                  \
    static ALWAYS_INLINE void store_##LANES##_float(float *p, vector_##LANES##_float value)                            \
    {                                                                                                                  \
        *(floats_##LANES *)p = value;                                                                                  \
    }                                                                                                                  \
    static ALWAYS_INLINE vector_##LANES##_float scaled_##LANES##_float(vector_##LANES##_float sum,                     \
                                                                       vector_##LANES##_float scale)                   \
    {                                                                                                                  \
        return (void)scale, sum;                                                                                       \
    }                                                                                                                  \
    static ALWAYS_INLINE vector_##LANES##_float scaled_##LANES##_int8_t(vector_##LANES##_float sum,                    \
                                                                        vector_##LANES##_float scale)                  \
    {                                                                                                                  \
        return sum * scale;                                                                                            \
    }

#define LOAD_BY_LANE(LANES)                                                                                            \
    typedef int32_t integers_##LANES __attribute__((vector_size(4 * LANES)));                                          \
    static ALWAYS_INLINE vector_##LANES##_float load_##LANES##_int8_t(const int8_t *p)                                 \
    {                                                                                                                  \
        integers_##LANES value = {0};                                                                                  \
        for (int i = 0; i < LANES; i++)                                                                                \
            value[i] = p[i];                                                                                           \
        return __builtin_convertvector(value, vector_##LANES##_float);                                                 \
    }

#if defined(__GNUC__) && defined(__AVX512F__)
#define MAX_LANES 16
#elif defined(__GNUC__) && defined(__AVX__)
#define MAX_LANES 8
#elif defined(__GNUC__) && (defined(__SSE2__) || defined(__ARM_NEON))
#define MAX_LANES 4
#else
#define MAX_LANES 1
#endif

/* 32 registers for sums and weights, of vectors or of single floats; elsewhere some have 16. */
#if defined(__aarch64__) || (defined(__arm__) && !defined(__ARM_NEON))
#define MANY_REGISTERS 1
#else
#define MANY_REGISTERS 0
#endif

#if MAX_LANES >= 16
DEFINE_VECTOR(16)
static ALWAYS_INLINE vector_16_float load_16_int8_t(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
#define LANES 16
#define WEIGHT float
#include "block.h"
#undef WEIGHT
#define WEIGHT int8_t
#include "block.h"
#undef WEIGHT
#undef LANES
#endif
#if MAX_LANES >= 8
DEFINE_VECTOR(8)
#if defined(__AVX2__)
static ALWAYS_INLINE vector_8_float load_8_int8_t(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
#else
LOAD_BY_LANE(8)
#endif
#define LANES 8
#define WEIGHT float
#include "block.h"
#undef WEIGHT
#define WEIGHT int8_t
#include "block.h"
#undef WEIGHT
#undef LANES
#endif
#if MAX_LANES >= 4
DEFINE_VECTOR(4)
#if defined(__ARM_NEON) && !defined(__ARM_BIG_ENDIAN)
static ALWAYS_INLINE vector_4_float load_4_int8_t(const int8_t *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    const int16x8_t words = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
    return (vector_4_float)vcvtq_f32_s32(vmovl_s16(vget_low_s16(words)));
}
#else
LOAD_BY_LANE(4)
#endif
#define LANES 4
#define WEIGHT float
#include "block.h"
#undef WEIGHT
#define WEIGHT int8_t
#include "block.h"
#undef WEIGHT
#undef LANES
#endif
#define LANES 1
#define WEIGHT float
#include "block.h"
#undef WEIGHT
#define WEIGHT int8_t
#include "block.h"
#undef WEIGHT
#undef LANES

static void multiply(const product *p, size_t rows, size_t columns, int is_int8)
{
    size_t column = 0;
#if MAX_LANES >= 16
    column = (is_int8 ? columns_16_int8_t : columns_16_float)(p, rows, column, columns);
#endif
#if MAX_LANES >= 8
    column = (is_int8 ? columns_8_int8_t : columns_8_float)(p, rows, column, columns);
#endif
#if MAX_LANES >= 4
    column = (is_int8 ? columns_4_int8_t : columns_4_float)(p, rows, column, columns);
#endif
    (is_int8 ? columns_1_int8_t : columns_1_float)(p, rows, column, columns);
}

/* Multiply by one panel, chunk by chunk of the inputs: later ones add to the first. */
static void multiply_panel(product p, const vit_linear *layer, size_t rows, size_t width)
{
    const float *x = p.x;
    const char *weights = p.w;
    const size_t row_bytes = width * (layer->scale ? 1 : sizeof(float));
    for (size_t k = 0; k < layer->in; k += CHUNK) {
        p.x = x + k;
        p.w = weights + k * row_bytes;
        p.in = layer->in - k < CHUNK ? layer->in - k : CHUNK;
        multiply(&p, rows, width, layer->scale != NULL);
        p.bias = NULL;
        p.add = 1;
    }
}

void vit_linear_apply(const vit_linear *layer, size_t rows, const float *x, size_t x_stride, float *y, size_t y_stride,
                      int add)
{
    const size_t column_bytes = layer->in * (layer->scale ? 1 : sizeof(float));
    for (size_t column = 0; column < layer->out; column += VIT_PANEL) {
        const size_t left = layer->out - column;
        const size_t width = left < VIT_PANEL ? left : VIT_PANEL;
        const product p = {
            .x = x,
            .x_stride = x_stride,
            .w = (const char *)layer->weights + column * column_bytes,
            .w_stride = width,
            .y = y + column,
            .y_stride = y_stride,
            .scale = layer->scale ? layer->scale + column : NULL,
            .bias = layer->bias ? layer->bias + column : NULL,
            .add = add,
        };
        multiply_panel(p, layer, rows, width);
    }
}

void vit_product(size_t rows, size_t in, size_t out, const float *x, const float *w, float *y)
{
    const product p = {.x = x, .x_stride = in, .w = w, .w_stride = out, .in = in, .y = y, .y_stride = out};
    multiply(&p, rows, out, 0);
}

/* Sums of many numbers are kept in so many lanes, since compilers may not reorder a single sum to use vectors. */
#define SUM_LANES (MAX_LANES > 1 ? 16 : 4)

static float lanes_total(const float *sums)
{
    float total = 0;
    for (int l = 0; l < SUM_LANES; l++)
        total += sums[l];
    return total;
}

void vit_norm_apply(const vit_norm *norm, float eps, size_t n, const float *x, float *y)
{
    const size_t whole = n - n % SUM_LANES;
    float sums[SUM_LANES] = {0}, squares[SUM_LANES] = {0};
    for (size_t i = 0; i < whole; i += SUM_LANES)
        for (size_t l = 0; l < SUM_LANES; l++)
            sums[l] += x[i + l];
    for (size_t i = whole; i < n; i++)
        sums[0] += x[i];
    const float mean = norm->bias ? lanes_total(sums) / (float)n : 0.0f;
    for (size_t i = 0; i < whole; i += SUM_LANES)
        for (size_t l = 0; l < SUM_LANES; l++)
            squares[l] += (x[i + l] - mean) * (x[i + l] - mean);
    for (size_t i = whole; i < n; i++)
        squares[0] += (x[i] - mean) * (x[i] - mean);
    const float factor = 1.0f / sqrtf(lanes_total(squares) / (float)n + eps);
    if (norm->bias)
        for (size_t i = 0; i < n; i++)
            y[i] = (x[i] - mean) * factor * norm->weight[i] + norm->bias[i];
    else
        for (size_t i = 0; i < n; i++)
            y[i] = x[i] * factor * norm->weight[i];
}

typedef union {
    float number;
    uint32_t bits;
} float_bits;

/* e^x of x <= 0, within 1e-7 of itself; below -87 that of -87, which is nothing beside 1.
 *
 * x = n ln 2 + r; a polynomial of r, and n added to the exponent. Source: Cephes, expf.
 */
static ALWAYS_INLINE float power_of_e(float x)
{
    /* Of negative floats the bits rise with the size. As floats, compilers would not compare them in vectors. */
    const uint32_t lowest = 0xc2ae0000; /* -87 */
    float_bits limited = {.number = x};
    limited.bits = limited.bits < lowest ? limited.bits : lowest;
    x = limited.number;
    const int32_t n = (int32_t)(x * 1.44269504f - 0.5f);
    const float r = x - (float)n * 0.693359375f + (float)n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    float_bits power = {.number = p * (r * r) + r + 1.0f};
    power.bits += (uint32_t)n << 23;
    return power.number;
}

static ALWAYS_INLINE float sigmoid(float x)
{
    const float power = power_of_e(-fabsf(x));
    return (x < 0 ? power : 1.0f) / (1.0f + power);
}

/* x times the normal distribution of x, within 1e-7 and the rounding of x: max(x, 0) - t Phi(-t), where t = |x|.
 *
 * Phi(-t) is e^-P(t); P is a polynomial of degree 8, fitted so that the largest error of the GELU is least. It rises
 * for all t, so that nothing need be cut off.
 */
static ALWAYS_INLINE float gelu(float x)
{
    const float t = fabsf(x);
    float p = 1.3806831e-6f;
    p = p * t - 2.0289863e-5f;
    p = p * t + 9.5715787e-5f;
    p = p * t + 1.7566796e-4f;
    p = p * t - 5.0020190e-3f;
    p = p * t + 3.6461655e-2f;
    p = p * t + 3.1827393e-1f;
    p = p * t + 7.9788846e-1f;
    p = p * t + 6.9314712e-1f;
    return 0.5f * (x + t) - t * power_of_e(-p);
}

void vit_activate(vit_activation activation, size_t n, float *x)
{
    switch (activation) {
    case VIT_GELU:
        for (size_t i = 0; i < n; i++)
            x[i] = gelu(x[i]);
        break;
    case VIT_GELU_TANH: /* (1 + tanh u) / 2 is the sigmoid of 2 u */
        for (size_t i = 0; i < n; i++)
            x[i] *= sigmoid(1.59576912f * (x[i] + 0.044715f * x[i] * x[i] * x[i]));
        break;
    case VIT_QUICK_GELU:
        for (size_t i = 0; i < n; i++)
            x[i] *= sigmoid(1.702f * x[i]);
        break;
    case VIT_RELU:
        for (size_t i = 0; i < n; i++)
            x[i] = x[i] > 0 ? x[i] : 0;
        break;
    case VIT_SILU:
        for (size_t i = 0; i < n; i++)
            x[i] *= sigmoid(x[i]);
        break;
    case VIT_SIGMOID:
        for (size_t i = 0; i < n; i++)
            x[i] = sigmoid(x[i]);
        break;
    }
}

void vit_softmax(size_t n, float *x)
{
    const size_t whole = n - n % SUM_LANES;
    float tops[SUM_LANES], sums[SUM_LANES] = {0};
    for (size_t l = 0; l < SUM_LANES; l++)
        tops[l] = x[0];
    for (size_t i = 0; i < whole; i += SUM_LANES)
        for (size_t l = 0; l < SUM_LANES; l++)
            tops[l] = tops[l] > x[i + l] ? tops[l] : x[i + l];
    for (size_t i = whole; i < n; i++)
        tops[0] = tops[0] > x[i] ? tops[0] : x[i];
    for (size_t l = 1; l < SUM_LANES; l++)
        tops[0] = tops[0] > tops[l] ? tops[0] : tops[l];
    const float top = tops[0];
    for (size_t i = 0; i < n; i++)
        x[i] = power_of_e(x[i] - top);
    for (size_t i = 0; i < whole; i += SUM_LANES)
        for (size_t l = 0; l < SUM_LANES; l++)
            sums[l] += x[i + l];
    for (size_t i = whole; i < n; i++)
        sums[0] += x[i];
    const float factor = 1.0f / lanes_total(sums);
    for (size_t i = 0; i < n; i++)
        x[i] *= factor;
}
