/* Board of the example: this machine's clock and random numbers; it says where it listens, and ends when it is told. */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lwip/sockets.h"

void vit_task(void *unused);
uint64_t board_now_us(void);
void board_random(void *bytes, size_t count);
void board_log(const char *line);

uint64_t board_now_us(void) {
  struct timespec moment;
  clock_gettime(CLOCK_MONOTONIC, &moment);
  return (uint64_t)moment.tv_sec * 1000000u + (uint64_t)moment.tv_nsec / 1000u;
}

void board_random(void *bytes, size_t count) {
  FILE *source = fopen("/dev/urandom", "rb");
  if (source == NULL || fread(bytes, 1, count, source) != count) abort();
  fclose(source);
}

void board_log(const char *line) {
  struct sockaddr_in address;
  socklen_t size = sizeof address;
  fprintf(stderr, "%s\n", line);
  if (strcmp(line, "listening") != 0) return;
  /* The task keeps its socket to itself: the last one that was opened. */
  for (int file = 3; file < 16; file++) {
    if (getsockname(file, (struct sockaddr *)&address, &size) != 0) continue;
    printf("listening on 127.0.0.1:%u\n", (unsigned)ntohs(address.sin_port));
    fflush(stdout);
    return;
  }
}

static void stop(int number) {
  (void)number;
  _exit(0);
}

int main(void) {
  signal(SIGTERM, stop);
  vit_task(NULL);
  return 1;
}
