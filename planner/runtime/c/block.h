/* Kernel of matrix products for one vector and one type of weights: included by kernels.c, once for each pair.
 *
 * LANES is the number of floats in a vector, WEIGHT the type of the weights; JOIN pastes them to names.
 *
 * Up to four rows and four vectors of columns, a to d, are computed together: each weight that is read serves four
 * rows, each input four vectors, and many sums hide the latency of one. `four` (rows) and `vectors` (1, 2 or 4) are
 * constants wherever they are given.
 */
#define NAME(x) JOIN(x, LANES, WEIGHT)
#define VECTOR JOIN(vector, LANES, float)
#define LOAD(p) JOIN(load, LANES, float)(p)
#define STORE(p, value) JOIN(store, LANES, float)(p, value)

/* Vectors of columns: their weights, and what becomes of their sums. */
typedef struct {
    const WEIGHT *w;
    VECTOR scale_a, scale_b, scale_c, scale_d, bias_a, bias_b, bias_c, bias_d;
    int add;
} NAME(strip);

static ALWAYS_INLINE void NAME(finish)(float *y, VECTOR sum, VECTOR scale, VECTOR bias, int add)
{
    sum = NAME(scaled)(sum, scale) + bias;
    STORE(y, add ? sum + LOAD(y) : sum);
}

#define ADD_PRODUCTS(row)                                                                                              \
    a##row += x##row[k] * wa;                                                                                          \
    if (vectors > 1)                                                                                                   \
        b##row += x##row[k] * wb;                                                                                      \
    if (vectors > 2) {                                                                                                 \
        c##row += x##row[k] * wc;                                                                                      \
        d##row += x##row[k] * wd;                                                                                      \
    }

#define FINISH(row)                                                                                                    \
    NAME(finish)(y, a##row, s->scale_a, s->bias_a, s->add);                                                            \
    if (vectors > 1)                                                                                                   \
        NAME(finish)(y + LANES, b##row, s->scale_b, s->bias_b, s->add);                                                \
    if (vectors > 2) {                                                                                                 \
        NAME(finish)(y + 2 * LANES, c##row, s->scale_c, s->bias_c, s->add);                                            \
        NAME(finish)(y + 3 * LANES, d##row, s->scale_d, s->bias_d, s->add);                                            \
    }

/* Compute up to four of the rows that are left. Rows that there are not repeat the first, and are not written. */
static ALWAYS_INLINE void NAME(block)(const product *p, const NAME(strip) * s, const float *x0, float *y, size_t rows,
                                      int four, int vectors)
{
    const float *x1 = rows > 1 ? x0 + p->x_stride : x0;
    const float *x2 = rows > 2 ? x1 + p->x_stride : x0;
    const float *x3 = rows > 3 ? x2 + p->x_stride : x0;
    const WEIGHT *w = s->w;
    VECTOR a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0};
    VECTOR c0 = {0}, c1 = {0}, c2 = {0}, c3 = {0}, d0 = {0}, d1 = {0}, d2 = {0}, d3 = {0};
    for (size_t k = 0; k < p->in; k++, w += p->w_stride) {
        const VECTOR wa = NAME(load)(w);
        const VECTOR wb = vectors > 1 ? NAME(load)(w + LANES) : wa;
        const VECTOR wc = vectors > 2 ? NAME(load)(w + 2 * LANES) : wa;
        const VECTOR wd = vectors > 2 ? NAME(load)(w + 3 * LANES) : wa;
        ADD_PRODUCTS(0)
        if (four) {
            ADD_PRODUCTS(1)
            ADD_PRODUCTS(2)
            ADD_PRODUCTS(3)
        }
    }
    FINISH(0)
    if (!four)
        return;
    y += p->y_stride;
    FINISH(1)
    if (rows < 3)
        return;
    y += p->y_stride;
    FINISH(2)
    if (rows < 4)
        return;
    y += p->y_stride;
    FINISH(3)
}

/* Read a vector of scales or biases, of which there may be none. */
static ALWAYS_INLINE VECTOR NAME(optional)(const float *values, size_t column)
{
    const VECTOR zero = {0};
    return values ? LOAD(values + column) : zero;
}

/* Compute all rows of one, two or four vectors of columns. */
static ALWAYS_INLINE void NAME(compute)(const product *p, size_t rows, size_t column, int vectors)
{
    NAME(strip) s = {.w = (const WEIGHT *)p->w + column, .add = p->add};
    s.scale_a = NAME(optional)(p->scale, column);
    s.bias_a = NAME(optional)(p->bias, column);
    if (vectors > 1) {
        s.scale_b = NAME(optional)(p->scale, column + LANES);
        s.bias_b = NAME(optional)(p->bias, column + LANES);
    }
    if (vectors > 2) {
        s.scale_c = NAME(optional)(p->scale, column + 2 * LANES);
        s.bias_c = NAME(optional)(p->bias, column + 2 * LANES);
        s.scale_d = NAME(optional)(p->scale, column + 3 * LANES);
        s.bias_d = NAME(optional)(p->bias, column + 3 * LANES);
    }
    for (size_t row = 0; row < rows; row += 4) {
        const float *x = p->x + row * p->x_stride;
        float *y = p->y + row * p->y_stride + column;
        if (rows - row > 1)
            NAME(block)(p, &s, x, y, rows - row, 1, vectors);
        else
            NAME(block)(p, &s, x, y, 1, 0, vectors);
    }
}

/* Compute all rows of the columns from `column` on that fill vectors; return the first column that is left. */
static size_t NAME(columns)(const product *p, size_t rows, size_t column, size_t columns)
{
#if MANY_REGISTERS
    for (; column + 4 * LANES <= columns; column += 4 * LANES)
        NAME(compute)(p, rows, column, 4);
#endif
    for (; column + 2 * LANES <= columns; column += 2 * LANES)
        NAME(compute)(p, rows, column, 2);
    for (; column + LANES <= columns; column += LANES)
        NAME(compute)(p, rows, column, 1);
    return column;
}

#undef FINISH
#undef ADD_PRODUCTS
#undef STORE
#undef LOAD
#undef VECTOR
#undef NAME
