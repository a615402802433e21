#include "probe.h"

#include <string.h>

#define NUM_FLOATS(bytes) (((bytes) + sizeof(float) - 1) / sizeof(float))

#if defined(__clang__)
#define COMPILER __VERSION__
#elif defined(__GNUC__)
#define COMPILER "GCC " __VERSION__
#else
#define COMPILER "unknown"
#endif

/* Shortest run [ticks] of each round, and the number of all runs. */
typedef struct {
    uint64_t rounds[PROBE_ROUNDS];
    uint32_t runs;
} series;

static series measured[NUM_PROBES];
static float arena[NUM_FLOATS(PROBE_ARENA_BYTES)], image[NUM_FLOATS(NETWORKS_IMAGE_BYTES)];
static float features[NETWORKS_NUM_FEATURES];

static int fits(const vit_model *model) { return model->arena <= sizeof arena / sizeof *arena; }

/* Fill the image with numbers that are none of the slow ones: the time does not depend on them otherwise. */
static void draw_image(vit_dtype dtype)
{
    for (size_t i = 0; i < sizeof image / sizeof *image; i++)
        image[i] = (float)(i % 251);
    if (dtype == VIT_UINT8)
        for (size_t i = 0; i < sizeof image; i++)
            ((unsigned char *)image)[i] = (unsigned char)(i % 251);
}

/* Return the time of one image [ticks]. */
static uint64_t run(const probe_platform *p, const vit_model *model)
{
    const uint64_t start = p->ticks(p->context);
    vit_features(model, image, features, arena, NULL);
    return p->ticks(p->context) - start;
}

/* Run a network for so long, once at least, and return its shortest time [ticks]. */
static uint64_t run_for(const probe_platform *p, const vit_model *model, uint64_t least_ms, uint32_t *runs)
{
    const uint64_t start = p->ticks(p->context), least = p->ticks_per_second * least_ms / 1000;
    uint64_t shortest = UINT64_MAX;
    do {
        const uint64_t time = run(p, model);
        if (time < shortest)
            shortest = time;
        ++*runs;
    } while (p->ticks(p->context) - start < least);
    return shortest;
}

static void run_rounds(const probe_platform *p)
{
    for (size_t round = 0; round < PROBE_ROUNDS; round++)
        for (size_t i = 0; i < NUM_PROBES; i++)
            if (fits(PROBES[i].model)) {
                uint32_t warm_up = 0;
                run_for(p, PROBES[i].model, PROBE_WARM_MS, &warm_up);
                measured[i].rounds[round] = run_for(p, PROBES[i].model, PROBE_TIMED_MS, &measured[i].runs);
            }
}

static void put(const probe_platform *p, const char *text) { p->write(p->context, text, strlen(text)); }

/* Write value / 10^decimals. */
static void put_number(const probe_platform *p, uint64_t value, unsigned decimals)
{
    char digits[24], *d = digits + sizeof digits;
    *--d = 0;
    for (unsigned i = 0; value || i <= decimals; i++, value /= 10) {
        if (decimals && i == decimals)
            *--d = '.';
        *--d = (char)('0' + value % 10);
    }
    put(p, d);
}

static void put_us(const probe_platform *p, uint64_t ticks)
{
    const uint64_t seconds = ticks / p->ticks_per_second, rest = ticks % p->ticks_per_second;
    put_number(p, seconds * 1000000000 + rest * 1000000000 / p->ticks_per_second, 3);
}

/* Write a key and its text, without what JSON does not allow in it. */
static void put_text(const probe_platform *p, const char *key, const char *text)
{
    put(p, ", \"");
    put(p, key);
    put(p, "\": \"");
    for (; *text; text++)
        if ((unsigned char)*text >= ' ' && *text != '"' && *text != '\\')
            p->write(p->context, text, 1);
    put(p, "\"");
}

static uint64_t median(const uint64_t values[PROBE_ROUNDS])
{
    uint64_t sorted[PROBE_ROUNDS];
    for (size_t i = 0; i < PROBE_ROUNDS; i++) {
        size_t j = i;
        for (; j > 0 && sorted[j - 1] > values[i]; j--)
            sorted[j] = sorted[j - 1];
        sorted[j] = values[i];
    }
    const uint64_t low = sorted[(PROBE_ROUNDS - 1) / 2];
    return low + (sorted[PROBE_ROUNDS / 2] - low) / 2;
}

/* Return the median absolute deviation as a share of the median, scaled to estimate a standard deviation, in 10^-4. */
static uint64_t spread(const series *s)
{
    const uint64_t middle = median(s->rounds);
    uint64_t deviations[PROBE_ROUNDS];
    for (size_t i = 0; i < PROBE_ROUNDS; i++)
        deviations[i] = s->rounds[i] > middle ? s->rounds[i] - middle : middle - s->rounds[i];
    return middle ? 14826 * median(deviations) / middle : 0;
}

/* Write the beginning of an entry of timings or failures. */
static void put_probe(const probe_platform *p, const probe_network *probe, int is_first)
{
    put(p, is_first ? "\n{\"threads\": 1" : ",\n{\"threads\": 1");
    put_text(p, "network", probe->name);
    put_text(p, "precision", probe->precision);
}

static void put_timings(const probe_platform *p)
{
    int is_first = 1;
    for (size_t i = 0; i < NUM_PROBES; i++) {
        const series *s = measured + i;
        if (!fits(PROBES[i].model))
            continue;
        put_probe(p, PROBES + i, is_first);
        is_first = 0;
        put(p, ", \"median_us\": ");
        put_us(p, median(s->rounds));
        put(p, ", \"spread\": ");
        put_number(p, spread(s), 4);
        put(p, ", \"runs\": ");
        put_number(p, s->runs, 0);
        put(p, ", \"rounds_us\": [");
        for (size_t round = 0; round < PROBE_ROUNDS; round++) {
            if (round)
                put(p, ", ");
            put_us(p, s->rounds[round]);
        }
        put(p, "]}");
    }
}

static void put_failures(const probe_platform *p)
{
    int is_first = 1;
    for (size_t i = 0; i < NUM_PROBES; i++) {
        if (fits(PROBES[i].model))
            continue;
        put_probe(p, PROBES + i, is_first);
        is_first = 0;
        put(p, ", \"reason\": \"it needs an arena of ");
        put_number(p, PROBES[i].model->arena * sizeof(float), 0);
        put(p, " bytes, PROBE_ARENA_BYTES is ");
        put_number(p, sizeof arena, 0);
        put(p, "\"}");
    }
}

void probe_run(const probe_platform *p)
{
    draw_image(PROBES[0].model->input.dtype);
    run_rounds(p);
    put(p, "{\"schema_version\": 1");
    put_text(p, "manifest_sha256", PROBE_MANIFEST_SHA256);
    put(p, ",\n\"device\": {\"cores\": ");
    put_number(p, p->cores, 0);
    put_text(p, "compiler", COMPILER);
    put_text(p, "platform", p->system);
    put_text(p, "machine", p->machine);
    put_text(p, "cpu", p->cpu);
    put(p, "},\n\"complete\": true, \"peak_memory_bytes\": ");
    put_number(p, sizeof arena + sizeof image + sizeof features + sizeof measured, 0);
    put(p, ",\n\"manifest\": ");
    for (size_t i = 0; i < NUM_MANIFEST_LINES; i++) {
        put(p, PROBE_MANIFEST[i]);
        put(p, "\n");
    }
    put(p, ", \"timings\": [");
    put_timings(p);
    put(p, "],\n\"failures\": [");
    put_failures(p);
    put(p, "]}\n");
}
