/* What a program on qemu's Cortex-M boards starts from: reset, a clock, and output by semihosting. */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

enum { STACK_BYTES = 65536, MAX_TICKS = 0xFFFFFF };

/* The program; the FPU is on when it is called. */
void run(void);

/* Print text. */
void print_text(const char *text);

/* Print a name and its value on a line. */
void print(const char *name, uint32_t value);

/* Return SysTick, which counts down from MAX_TICKS. */
uint32_t now(void);

uint32_t ticks_since(uint32_t start);

/* Return the bytes of stack that were written at any time. */
uint32_t stack_bytes(void);

extern uint32_t stack_top;

#endif
