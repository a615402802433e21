/* Runs every model of a table on images from standard input, and writes features to standard output.
 *
 * All buffers come from malloc at exactly the size that the headers state, images at an odd address, so that a sanitizer
 * sees each access beyond an end. Behind the features of a model comes the number of bytes that it used of its arena. */
#include "table.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAINT = 0xA5 };

static void *allocate(size_t size)
{
    void *memory = malloc(size);
    if (!memory)
        abort();
    return memory;
}

static size_t used_bytes(const unsigned char *arena, size_t size)
{
    while (size && arena[size - 1] == PAINT)
        size--;
    return size;
}

static void run(const entry *e, size_t num_images)
{
    unsigned char *image = allocate(e->input_bytes + 1);
    float *features = allocate(e->num_features * sizeof *features);
    void *arena = allocate(e->arena_bytes);
    memset(arena, PAINT, e->arena_bytes);
    for (size_t i = 0; i < num_images; i++) {
        if (fread(image + 1, 1, e->input_bytes, stdin) != e->input_bytes)
            abort();
        e->infer(image + 1, features, arena);
        fwrite(features, sizeof *features, e->num_features, stdout);
    }
    const uint32_t used = (uint32_t)used_bytes(arena, e->arena_bytes);
    fwrite(&used, sizeof used, 1, stdout);
    free(image);
    free(features);
    free(arena);
}

int main(int count, char **arguments)
{
    if (count != 2)
        return 2;
    for (size_t m = 0; m < NUM_ENTRIES; m++)
        run(entries[m], (size_t)atoi(arguments[1]));
    return 0;
}
