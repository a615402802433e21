/* SysTick is the clock. Under -icount shift=0 one instruction takes one nanosecond. The stack is painted before, and what
 * was written of it counted. */
#include "board.h"

enum { RESERVE_BYTES = 512 };
#define PAINT 0xA5A5A5A5u
#define SYSTICK ((volatile uint32_t *)0xE000E010) /* control, reload, current */
#define CPACR (*(volatile uint32_t *)0xE000ED88)

extern uint32_t data_load, data_start, data_end, bss_start, bss_end;

static void semihosting(int operation, const void *argument)
{
    register int r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = argument;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

void print_text(const char *text) { semihosting(4, text); }

void print(const char *name, uint32_t value)
{
    char digits[12], *d = digits + sizeof digits;
    *--d = 0;
    *--d = '\n';
    do
        *--d = (char)('0' + value % 10);
    while (value /= 10);
    print_text(name);
    print_text(" ");
    print_text(d);
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

uint32_t now(void) { return SYSTICK[2]; }

uint32_t ticks_since(uint32_t start) { return (start - now()) & MAX_TICKS; }

static uint32_t *lowest_of_stack(void) { return &stack_top - STACK_BYTES / 4; }

uint32_t stack_bytes(void)
{
    const uint32_t *p = lowest_of_stack();
    while (*p == PAINT)
        p++;
    return (uint32_t)((const char *)&stack_top - (const char *)p);
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
    SYSTICK[1] = MAX_TICKS;
    SYSTICK[2] = 0;
    SYSTICK[0] = 5;
    run();
    stop(0);
}

__attribute__((section(".vectors"), used)) void (*const vectors[])(void) = {
    (void (*)(void))&stack_top, reset, fault, fault, fault, fault, fault,
};
