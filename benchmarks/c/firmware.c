/* Firmware for qemu's Cortex-M boards: computes test images, and prints what it took by semihosting.
 *
 * SysTick is the clock. Under -icount shift=0 one instruction takes one nanosecond; a loop of known length says how many
 * instructions a tick has. The stack is painted before, and what was written of it counted. */
#include "model.h"
#include "test_images.h" /* NUM_IMAGES, images, expected */

#include <stdint.h>

enum { STACK_BYTES = 65536, RESERVE_BYTES = 512, LOOPS = 100000, MAX_TICKS = 0xFFFFFF };
#define PAINT 0xA5A5A5A5u
#define SYSTICK ((volatile uint32_t *)0xE000E010) /* control, reload, current */
#define CPACR (*(volatile uint32_t *)0xE000ED88)

extern uint32_t data_load, data_start, data_end, bss_start, bss_end, stack_top;
static float arena[MODEL_ARENA_BYTES / 4], features[MODEL_NUM_FEATURES];

static void semihosting(int operation, const void *argument)
{
    register int r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = argument;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void print(const char *name, uint32_t value)
{
    char digits[12], *d = digits + sizeof digits;
    *--d = 0;
    *--d = '\n';
    do
        *--d = (char)('0' + value % 10);
    while (value /= 10);
    semihosting(4, name);
    semihosting(4, " ");
    semihosting(4, d);
}

static void stop(int is_fault)
{
    semihosting(0x18, (const void *)(is_fault ? 0x20023 : 0x20026));
    for (;;)
        ;
}

static void fault(void)
{
    print("fault", 1);
    stop(1);
}

static uint32_t now(void) { return SYSTICK[2]; }

static uint32_t ticks_since(uint32_t start) { return (start - now()) & MAX_TICKS; }

static uint32_t ticks_of_loops(void)
{
    uint32_t n = LOOPS;
    const uint32_t start = now();
    __asm volatile("1: subs %0, %0, #1\n bne 1b" : "+r"(n));
    return ticks_since(start);
}

static uint32_t *lowest_of_stack(void) { return &stack_top - STACK_BYTES / 4; }

static uint32_t stack_bytes(void)
{
    const uint32_t *p = lowest_of_stack();
    while (*p == PAINT)
        p++;
    return (uint32_t)((const char *)&stack_top - (const char *)p);
}

/* A function of its own: floats may be used only when the FPU is on. */
__attribute__((noinline)) static void measure(void)
{
    float worst = 0, largest = 0;
    uint32_t ticks = 0, before = 0;
    SYSTICK[1] = MAX_TICKS;
    SYSTICK[2] = 0;
    SYSTICK[0] = 5;
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

void reset(void)
{
#ifdef __ARM_FP
    CPACR |= 0xFu << 20;
    __asm volatile("dsb\nisb");
#endif
    uint32_t *from = &data_load;
    for (uint32_t *to = &data_start; to < &data_end; to++)
        *to = *from++;
    for (uint32_t *to = &bss_start; to < &bss_end; to++)
        *to = 0;
    /* All of the stack but what this function is using. */
    for (volatile uint32_t *p = lowest_of_stack(); p < (volatile uint32_t *)&stack_top - RESERVE_BYTES / 4; p++)
        *p = PAINT;
    measure();
    stop(0);
}

__attribute__((section(".vectors"), used)) void (*const vectors[])(void) = {
    (void (*)(void))&stack_top, reset, fault, fault, fault, fault, fault,
};
