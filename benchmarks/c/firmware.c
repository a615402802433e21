/* Computes test images, and prints what it took. A loop of known length says how many instructions a tick has. */
#include "board.h"
#include "model.h"
#include "test_images.h" /* NUM_IMAGES, images, expected */

enum { LOOPS = 100000 };

static float arena[MODEL_ARENA_BYTES / 4], features[MODEL_NUM_FEATURES];

static uint32_t ticks_of_loops(void)
{
    uint32_t n = LOOPS;
    const uint32_t start = now();
    __asm volatile("1: subs %0, %0, #1\n bne 1b" : "+r"(n));
    return ticks_since(start);
}

void run(void)
{
    float worst = 0, largest = 0;
    uint32_t ticks = 0, before = 0;
    print("loop_instructions", 2 * LOOPS);
    print("loop_ticks", ticks_of_loops());
    before = (uint32_t)((const char *)&stack_top - (const char *)__builtin_frame_address(0));
    for (int i = 0; i < NUM_IMAGES; i++) {
        const uint32_t start = now();
        model_infer(images[i], features, arena);
        ticks = ticks_since(start);
        for (int e = 0; e < MODEL_NUM_FEATURES; e++) {
            const float error = features[e] - expected[i][e], size = expected[i][e];
            worst = error > worst ? error : -error > worst ? -error : worst;
            largest = size > largest ? size : -size > largest ? -size : largest;
        }
    }
    print("ticks", ticks);
    print("stack_before", before);
    print("stack", stack_bytes());
    print("error_e9", (uint32_t)(1e9f * worst / largest));
}
