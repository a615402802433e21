/* Times the networks of a probe folder, and prints latency.json: a microsecond in it is a thousand instructions. */
#include "board.h"
#include "probe.h"

#define TICKS_PER_SECOND 25000000

static uint64_t ticks(void *context)
{
    static uint32_t last;
    static uint64_t total;
    (void)context;
    const uint32_t current = now();
    total += (last - current) & MAX_TICKS;
    last = current;
    return total;
}

static void write_out(void *context, const char *text, size_t length)
{
    char part[64];
    (void)context;
    while (length) {
        size_t n = 0;
        for (; n < length && n < sizeof part - 1; n++)
            part[n] = text[n];
        part[n] = 0;
        print_text(part);
        text += n;
        length -= n;
    }
}

void run(void)
{
    const probe_platform board = {
        .ticks = ticks,
        .ticks_per_second = TICKS_PER_SECOND,
        .write = write_out,
        .system = "none",
        .machine = "Thumb-2",
        .cpu = "qemu, 1 instruction a nanosecond",
        .cores = 1,
    };
    probe_run(&board);
}
