#include "vit.h"

#include <stdint.h>
#include <string.h>

/* Image or feature map (height, width, channels) that windows are taken of. */
typedef struct {
    const vit_input *input; /* of the image; NULL: a map */
    const void *image;
    const float *map;
    size_t channels, height, width;
} source;

/* Windows of a source, each of which becomes a row of outputs. */
typedef struct {
    size_t height, width, stride_y, stride_x, padding;
} windows;

/* Memory for what is not kept. */
typedef struct {
    float *start;
    size_t size;
} room;

static void make_pause(const vit_pause *pause)
{
    if (pause)
        pause->call(pause->context);
}

/* Return how many of `rows` rows fit, in fours if there are more than four. */
static size_t rows_that_fit(size_t room_size, size_t row_size, size_t rows)
{
    const size_t fit = room_size / row_size;
    if (fit >= rows)
        return rows;
    return fit > 4 ? fit - fit % 4 : fit;
}

/* Apply a norm to each of some rows of n floats in place; NULL: none. */
static void normalise(const vit_norm *norm, float eps, size_t rows, size_t n, float *x)
{
    if (norm)
        for (size_t row = 0; row < rows; row++)
            vit_norm_apply(norm, eps, n, x + row * n, x + row * n);
}

static float input_value(const source *s, size_t channel, size_t y, size_t x)
{
    const size_t i = (channel * s->height + y) * s->width + x;
    float value;
    if (s->input->dtype == VIT_UINT8)
        value = (float)((const uint8_t *)s->image)[i];
    else
        memcpy(&value, (const char *)s->image + i * sizeof value, sizeof value);
    return value * s->input->factor[channel] - s->input->offset[channel];
}

/* Write the values of a window, (height, width, channels); its corner is given with the padding counted, whose values
 * are 0. */
static void gather(const source *s, const windows *w, size_t top, size_t left, float *out)
{
    const size_t channels = s->channels;
    for (size_t i = top; i < top + w->height; i++)
        for (size_t j = left; j < left + w->width; j++, out += channels) {
            /* Unsigned numbers below the padding become the largest. */
            const size_t y = i - w->padding, x = j - w->padding;
            if (y >= s->height || x >= s->width)
                memset(out, 0, channels * sizeof *out);
            else if (s->input == NULL)
                memcpy(out, s->map + (y * s->width + x) * channels, channels * sizeof *out);
            else
                for (size_t c = 0; c < channels; c++)
                    out[c] = input_value(s, c, y, x);
        }
}

/* Write, or add, a layer's outputs of all windows, row by row: (number of windows, layer->out). */
static void convolve(const source *s, const windows *w, const vit_linear *layer, float *y, int add, room r,
                     const vit_pause *pause)
{
    const size_t columns = (s->width + 2 * w->padding - w->width) / w->stride_x + 1;
    const size_t count = ((s->height + 2 * w->padding - w->height) / w->stride_y + 1) * columns;
    const size_t tile = rows_that_fit(r.size, layer->in, count);
    for (size_t first = 0; first < count; first += tile) {
        const size_t rows = count - first < tile ? count - first : tile;
        for (size_t n = 0; n < rows; n++) {
            const size_t i = first + n;
            gather(s, w, i / columns * w->stride_y, i % columns * w->stride_x, r.start + n * layer->in);
        }
        vit_linear_apply(layer, rows, r.start, layer->in, y + first * layer->out, layer->out, add);
        make_pause(pause);
    }
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Replace a map (height, width, channels) of positive values by the maxima of its windows of 3 x 3 with stride 2, whose
 * values outside count nothing. None is written before its window was read. */
static void pool_map(size_t height, size_t width, size_t channels, float *map)
{
    float *out = map;
    for (size_t top = 0; top < height; top += 2)
        for (size_t left = 0; left < width; left += 2, out += channels)
            for (size_t c = 0; c < channels; c++) {
                float largest = 0;
                for (size_t y = top ? top - 1 : 0; y < smaller(top + 2, height); y++)
                    for (size_t x = left ? left - 1 : 0; x < smaller(left + 2, width); x++) {
                        const float value = map[(y * width + x) * channels + c];
                        largest = value > largest ? value : largest;
                    }
                out[c] = largest;
            }
}

/* Take a source, first the image, through the stem, whose maps lie at the start and at the end of the room in turns.
 * Return the room that the last one leaves. */
static room apply_stem(const vit_stem *stem, source *s, room r, const vit_pause *pause)
{
    const size_t side = stem->kernel, stride = stem->stride;
    const windows w = {side, side, stride, stride, side / 2};
    size_t map_size = 0;
    for (size_t i = 0; i < stem->count; i++) {
        const vit_linear *layer = stem->convolutions + i;
        const size_t height = s->height / stride, width = s->width / stride, size = height * width * layer->out;
        const size_t at_start = i % 2 ? map_size : size;
        float *map = i % 2 ? r.start + r.size - size : r.start;
        convolve(s, &w, layer, map, 0, (room){r.start + at_start, r.size - size - map_size}, pause);
        vit_activate(stem->has_max_pool ? VIT_RELU : VIT_GELU, size, map);
        *s = (source){.map = map, .channels = layer->out, .height = height, .width = width};
        map_size = size;
        if (stem->has_max_pool) {
            pool_map(height, width, layer->out, map);
            s->height /= 2;
            s->width /= 2;
            map_size = s->height * s->width * s->channels;
            if (i % 2)
                s->map = memmove(r.start + r.size - map_size, map, map_size * sizeof *map);
        }
    }
    return (room){r.start + (stem->count % 2 ? map_size : 0), r.size - map_size};
}

/* Write the tokens (N, E) that enter the first block. */
static void embed(const vit_model *m, const void *image, float *x, room r, const vit_pause *pause)
{
    const size_t E = m->embed_dim;
    source s = {.input = &m->input,
                .image = image,
                .channels = m->input.channels,
                .height = m->input.height,
                .width = m->input.width};
    if (m->stem)
        r = apply_stem(m->stem, &s, r, pause);
    memcpy(x, m->tokens, m->num_tokens * E * sizeof *x);
    const windows patches = {m->patch_height, m->patch_width, m->patch_height, m->patch_width, 0};
    convolve(&s, &patches, &m->patch, x + m->num_prefix * E, 1, r, pause);
    normalise(m->first_norm, m->eps, m->num_tokens, E, x);
}

/* Return one head's part of a layer whose parts, of `in` inputs and `out` outputs, follow one another. */
static vit_linear part_of(const vit_linear *layer, size_t part, size_t in, size_t out)
{
    const size_t bytes = in * out * (layer->scale ? 1 : sizeof(float));
    return (vit_linear){.weights = (const char *)layer->weights + part * bytes, .in = in, .out = out};
}

/* Return the layer of one head's queries, keys or values. */
static vit_linear qkv_part(const vit_block *b, size_t part, size_t E, size_t D)
{
    vit_linear layer = part_of(&b->qkv, part, E, D);
    layer.scale = b->qkv.scale ? b->qkv.scale + part * D : NULL;
    layer.bias = b->qkv.bias + part * D;
    return layer;
}

/* Write keys (N, D) and their transpose (D, N), then values in place of the keys. */
static void keys_and_values(const vit_model *m, const vit_linear *key, const vit_norm *key_norm,
                            const vit_linear *value, const float *normed, float *transposed, float *values)
{
    const size_t N = m->num_tokens, E = m->embed_dim, D = m->head_dim;
    vit_linear_apply(key, N, normed, E, values, D, 0);
    normalise(key_norm, m->eps, N, D, values);
    for (size_t d = 0; d < D; d++)
        for (size_t n = 0; n < N; n++)
            transposed[d * N + n] = values[n * D + d];
    vit_linear_apply(value, N, normed, E, values, D, 0);
}

/* Add a block's attention to the first `needed` tokens of x (N, E), by what all of them are: one head after the other,
 * some queries at a time. */
static void attend(const vit_model *m, const vit_block *b, size_t needed, float *x, float *memory,
                   const vit_pause *pause)
{
    const size_t N = m->num_tokens, E = m->embed_dim, D = m->head_dim;
    float *normed = memory, *keys = normed + N * E, *values = keys + N * D;
    float *queries = values + N * D, *scores = queries + m->tile * D;
    const vit_head_norms *norms = m->head_norms ? m->head_norms + (b - m->blocks) : NULL;
    for (size_t n = 0; n < N; n++)
        vit_norm_apply(&b->attention_norm, m->eps, E, x + n * E, normed + n * E);
    for (size_t h = 0; h < b->heads; h++) {
        const vit_linear query = qkv_part(b, h, E, D), key = qkv_part(b, b->heads + h, E, D);
        const vit_linear value = qkv_part(b, 2 * b->heads + h, E, D);
        vit_linear proj = part_of(&b->proj, h, D, E);
        proj.scale = b->proj.scale;
        proj.bias = h == 0 ? b->proj.bias : NULL;
        keys_and_values(m, &key, norms ? &norms->key : NULL, &value, normed, keys, values);
        for (size_t first = 0; first < needed; first += m->tile) {
            const size_t rows = needed - first < m->tile ? needed - first : m->tile;
            vit_linear_apply(&query, rows, normed + first * E, E, queries, D, 0);
            normalise(norms ? &norms->query : NULL, m->eps, rows, D, queries);
            vit_product(rows, D, N, queries, keys, scores);
            for (size_t n = 0; n < rows; n++)
                vit_softmax(N, scores + n * N);
            float *outputs = queries;
            vit_product(rows, N, D, scores, values, outputs);
            vit_linear_apply(&proj, rows, outputs, D, x + first * E, E, 1);
            make_pause(pause);
        }
    }
}

/* Write what some tokens' hidden channels pass on to the first (hidden) of each row of outputs of fc1. */
static void activate(vit_activation activation, const vit_block *b, size_t rows, float *x)
{
    const size_t hidden = b->hidden, width = b->fc1.out;
    if (width == hidden) {
        vit_activate(activation, rows * hidden, x);
        return;
    }
    for (size_t row = 0; row < rows; row++, x += width) {
        vit_activate(activation, hidden, x);
        for (size_t c = 0; c < hidden; c++)
            x[c] *= x[hidden + c];
    }
}

/* Add a block's MLP to the first `needed` tokens of x (N, E), as many at a time as the memory holds. */
static void apply_mlp(const vit_model *m, const vit_block *b, size_t needed, float *x, room r, const vit_pause *pause)
{
    const size_t E = m->embed_dim, width = b->fc1.out, tile = rows_that_fit(r.size, E + width, needed);
    float *normed = r.start, *hidden = normed + tile * E;
    for (size_t first = 0; first < needed; first += tile) {
        const size_t rows = needed - first < tile ? needed - first : tile;
        float *tokens = x + first * E;
        const float *inputs = m->norm_between_halves ? tokens : normed;
        if (inputs == normed)
            for (size_t n = 0; n < rows; n++)
                vit_norm_apply(&b->mlp_norm, m->eps, E, tokens + n * E, normed + n * E);
        vit_linear_apply(&b->fc1, rows, inputs, E, hidden, width, 0);
        activate(m->activation, b, rows, hidden);
        vit_linear_apply(&b->fc2, rows, hidden, width, tokens, E, 1);
        make_pause(pause);
    }
}

/* Write the features (E) of the patches (count, E) behind the last block: their mean, weighted by a softmax of their
 * scores behind the last norm. */
static void pool_by_scores(const vit_model *m, size_t count, float *patches, float *features, float *scores)
{
    const size_t E = m->embed_dim;
    normalise(&m->last_norm, m->eps, count, E, patches);
    vit_linear_apply(m->pool_scores, count, patches, E, scores, 1, 0);
    vit_softmax(count, scores);
    vit_product(1, count, E, scores, patches, features);
}

/* Write the features (E) of the tokens x (N, E) behind the last block, which are overwritten. */
static void pool(const vit_model *m, float *x, float *features)
{
    const size_t E = m->embed_dim;
    const int of_first = m->pooling == VIT_FIRST_TOKENS;
    const size_t first = of_first ? 0 : m->num_prefix, count = of_first ? m->num_pooled : m->num_tokens - m->num_prefix;
    memset(features, 0, E * sizeof *features);
    for (size_t n = first; n < first + count; n++) {
        if (m->pooling != VIT_NORMALISED_MEAN)
            vit_norm_apply(&m->last_norm, m->eps, E, x + n * E, x + n * E);
        for (size_t e = 0; e < E; e++)
            features[e] += x[n * E + e];
    }
    for (size_t e = 0; e < E; e++)
        features[e] /= (float)count;
    if (m->pooling == VIT_NORMALISED_MEAN)
        vit_norm_apply(&m->last_norm, m->eps, E, features, features);
}

void vit_features(const vit_model *model, const void *image, float *features, float *arena, const vit_pause *pause)
{
    const size_t stream = model->num_tokens * model->embed_dim;
    const room rest = {arena + stream, model->arena - stream};
    embed(model, image, arena, rest, pause);
    for (size_t l = 0; l < model->num_blocks; l++) {
        const vit_block *block = model->blocks + l;
        /* Nobody reads the other tokens behind the last block. */
        const int pools_next = l + 1 == model->num_blocks && model->pooling == VIT_FIRST_TOKENS;
        const size_t needed = pools_next ? model->num_pooled : model->num_tokens;
        if (block->heads)
            attend(model, block, needed, arena, rest.start, pause);
        if (model->norm_between_halves)
            normalise(&block->mlp_norm, model->eps, needed, model->embed_dim, arena);
        if (block->hidden)
            apply_mlp(model, block, needed, arena, rest, pause);
    }
    if (model->pooling == VIT_WEIGHTED_MEAN)
        pool_by_scores(model, model->num_tokens - model->num_prefix, arena + model->num_prefix * model->embed_dim,
                       features, rest.start);
    else
        pool(model, arena, features);
}
