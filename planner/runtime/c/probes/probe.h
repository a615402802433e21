/* Times the networks of this folder on a device, and writes latency.json for `planner probe add`.
 *
 * The networks take turns, round after round, so that a slow moment of the device affects them all. In its turn a
 * network first warms up, then is measured; the shortest run counts. Its time is the median over the rounds.
 */
#ifndef VIT_PROBE_H
#define VIT_PROBE_H

#include <stddef.h>
#include <stdint.h>

#include "networks.h"

/* RAM for the arena of a network; those that need more are reported as failures. */
#ifndef PROBE_ARENA_BYTES
#define PROBE_ARENA_BYTES NETWORKS_ARENA_BYTES
#endif

#ifndef PROBE_ROUNDS
#define PROBE_ROUNDS 5
#endif

/* Least time of a network's warm-up and of its measurement in a round; one run at least. */
#ifndef PROBE_WARM_MS
#define PROBE_WARM_MS 20
#endif
#ifndef PROBE_TIMED_MS
#define PROBE_TIMED_MS 30
#endif

/* Device, as latency.json tells of it, and its callbacks; the context is its own. */
typedef struct {
    void *context;
    /* Return a counter that only grows, before and after each image: a watchdog may be reset here, too. */
    uint64_t (*ticks)(void *context);
    uint64_t ticks_per_second; /* at most 10^10 */
    /* Write characters of latency.json. */
    void (*write)(void *context, const char *text, size_t length);
    const char *system, *machine, *cpu; /* operating system, instruction set, processor or board */
    unsigned cores;
} probe_platform;

/* Time all networks and write latency.json. */
void probe_run(const probe_platform *platform);

#endif
