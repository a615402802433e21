/* Example of a worker in a firmware with lwIP's sockets: ESP-IDF, the Pico SDK with FreeRTOS, or Zephyr with its POSIX
 * names. Add to the firmware, with VIT_LWIP defined: this file, worker.c, sha256.c, sockets.c, kernels.c, vit.c,
 * model.c, device.c, self_test.c, expected.c; `make token.h` writes the token as a header. When the network is up, start
 * vit_task as a task of its own (4 KiB of stack). It returns, after a line that says why, only if it cannot begin.
 *
 * Three functions are the firmware's: */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Time since the start; esp_timer_get_time(), time_us_64(), k_ticks_to_us_floor64(k_uptime_ticks()). */
uint64_t board_now_us(void);
/* Bytes of the hardware's random generator; esp_fill_random(), get_rand_64(), sys_csrand_get(). Never rand(). */
void board_random(void *bytes, size_t count);
/* A line for the console. */
void board_log(const char *line);

#include "device.h"
#include "expected.h"
#include "model.h"
#include "self_test.h"
#include "sockets.h"
#include "token.h"
#include "vit.h"

#ifndef VIT_PORT
#define VIT_PORT 7447
#endif

typedef struct {
  vit_sockets sockets; /* first, as its callbacks want */
  vit_worker worker;
} board;

static float arena[(MODEL_ARENA_BYTES + 3) / 4], image[(MODEL_INPUT_BYTES + 3) / 4];
static float reply[VIT_REPLY_FLOATS(MODEL_NUM_FEATURES)];

static uint64_t now_us(void *context) {
  (void)context;
  return board_now_us();
}

static bool draw(void *context, void *bytes, size_t count) {
  (void)context;
  board_random(bytes, count);
  return true;
}

/* All memory is fixed: the linker tells how much it is. */
static uint64_t peak_memory(void *context) {
  (void)context;
  return 0;
}

static void log_line(void *context, int connection, const char *what) {
  (void)context;
  (void)connection;
  board_log(what);
}

static uint32_t compute(void *context, const vit_request *request, const void *values, float *features) {
  board *b = context;
  const vit_pause pause = {vit_worker_pause, &b->worker};
  const uint64_t began = board_now_us();
  (void)request;
  vit_features(&model, values, features, arena, &pause);
  return (uint32_t)(board_now_us() - began);
}

void vit_task(void *unused) {
  static board b;
  static uint8_t token[VIT_TOKEN_BYTES];
  static const vit_platform platform = {&b,                vit_sockets_accept, vit_sockets_read, vit_sockets_write,
                                        vit_sockets_close, vit_sockets_wait,   now_us,           draw,
                                        peak_memory,       log_line,           compute};
  struct sockaddr_in any = {0};
  (void)unused;
  any.sin_family = AF_INET;
  any.sin_port = htons(VIT_PORT);
  any.sin_addr.s_addr = htonl(INADDR_ANY);
  if (!vit_token(TOKEN, token)) board_log("token.h must hold the secret of the deployment");
  else if (!(vit_self_test(reply, arena) <= EXPECTED_TOLERANCE)) board_log("self-test failed");
  else if (!vit_sockets_listen(&b.sockets, (const struct sockaddr *)&any, sizeof any)) board_log("cannot listen");
  else {
    board_log("listening");
    vit_worker_begin(&b.worker, &DEVICE, &platform, token, image, reply);
    vit_worker_run(&b.worker);
  }
}
