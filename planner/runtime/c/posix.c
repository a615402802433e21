/* Worker of a Linux board in one program without Python:
 *
 *   worker FOLDER [--listen HOST:PORT] [--self-test] [--hold PART=US,...] [--marks FILE]
 *
 * FOLDER is the device folder, whose token is read; the sub-model is compiled in. With VIT_TLS defined it speaks TLS
 * beyond loopback, with the folder's certificate.pem and key.pem. Exit codes: 0 done, 1 unusable folder or address, 2 bad
 * arguments.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "address.h"
#include "device.h"
#include "expected.h"
#include "model.h"
#include "self_test.h"
#include "sockets.h"
#include "vit.h"
#ifdef VIT_TLS
#include "tls.h"
#endif

#define DEFAULT_ADDRESS "127.0.0.1:7447"
#define NAP_NS 20000000

#ifdef VIT_TLS
typedef vit_tls network;
#define NETWORK(callback) vit_tls_##callback
#else
typedef struct {
  vit_sockets sockets;
} network;
#define NETWORK(callback) vit_sockets_##callback
#endif

typedef struct {
  network network; /* first, as its callbacks want */
  uint64_t send_us, compute_us, return_us; /* planned times that a rehearsal keeps */
  FILE *marks;
  vit_worker worker;
} board;

static float arena[(MODEL_ARENA_BYTES + 3) / 4], image[(MODEL_INPUT_BYTES + 3) / 4];
static float reply[VIT_REPLY_FLOATS(MODEL_NUM_FEATURES)];
static volatile sig_atomic_t is_stopped;

static void stop(int number) {
  (void)number;
  is_stopped = 1;
}

static uint64_t now_ns(void) {
  struct timespec moment;
  clock_gettime(CLOCK_MONOTONIC, &moment);
  return (uint64_t)moment.tv_sec * 1000000000u + (uint64_t)moment.tv_nsec;
}

static uint64_t now_us(void *context) {
  (void)context;
  return now_ns() / 1000;
}

static bool wait_for_peers(void *context, const int *connections, unsigned count, uint32_t max_ms) {
  return NETWORK(wait)(context, connections, count, max_ms) && !is_stopped;
}

static bool draw(void *context, void *bytes, size_t count) {
  FILE *source = fopen("/dev/urandom", "rb");
  bool is_drawn = false;
  (void)context;
  if (source == NULL) return false;
  is_drawn = fread(bytes, 1, count, source) == count;
  fclose(source);
  return is_drawn;
}

static uint64_t peak_memory(void *context) {
  unsigned long long kib = 0;
  char line[256];
  FILE *status = fopen("/proc/self/status", "r");
  (void)context;
  if (status == NULL) return 0;
  while (fgets(line, sizeof line, status) != NULL)
    if (sscanf(line, "VmHWM: %llu", &kib) == 1) break;
  fclose(status);
  return 1024 * (uint64_t)kib;
}

static void log_line(void *context, int connection, const char *what) {
  char moment[32] = "", peer[ADDRESS_TEXT_BYTES];
  const time_t seconds = time(NULL);
  (void)context;
  strftime(moment, sizeof moment, "%Y-%m-%d %H:%M:%S", localtime(&seconds));
  if (connection < 0) fprintf(stderr, "%s %s\n", moment, what);
  else fprintf(stderr, "%s %s: %s\n", moment, address_of_peer(connection, peer), what);
}

static void sleep_until(board *b, uint64_t moment_ns) {
  for (uint64_t now = now_ns(); now < moment_ns; now = now_ns()) {
    const uint64_t left = moment_ns - now;
    const struct timespec nap = {0, (long)(left < NAP_NS ? left : NAP_NS)};
    nanosleep(&nap, NULL);
    vit_worker_pause(&b->worker);
  }
}

/* Moments of a request, for the rehearsal that compares them with the plan: <Qqqqqq. */
static void mark(FILE *file, const uint64_t moments[6]) {
  if (file == NULL) return;
  for (unsigned i = 0; i < 6; i++)
    for (unsigned byte = 0; byte < 8; byte++) fputc((int)(moments[i] >> (8 * byte) & 0xff), file);
  fflush(file);
}

static uint32_t compute(void *context, const vit_request *request, const void *values, float *features) {
  board *b = context;
  const vit_pause pause = {vit_worker_pause, &b->worker};
  uint64_t moments[6] = {request->id, 1000 * request->arrived_us, 0, 0, 0, 0};
  sleep_until(b, moments[1] + 1000 * b->send_us);
  moments[2] = now_ns();
  vit_features(&model, values, features, arena, &pause);
  moments[3] = now_ns();
  sleep_until(b, moments[2] + 1000 * b->compute_us);
  moments[4] = now_ns();
  sleep_until(b, moments[4] + 1000 * b->return_us);
  moments[5] = now_ns();
  mark(b->marks, moments);
  return (uint32_t)((moments[4] - moments[2]) / 1000);
}

static bool passes_self_test(void) {
  const double difference = (double)vit_self_test(reply, arena), allowed = (double)EXPECTED_TOLERANCE;
  if (difference <= allowed) {
    fprintf(stderr, "self-test passed, answers differ by %.1g of the largest\n", difference);
    return true;
  }
  fprintf(stderr, "self-test failed: answers must be within %.2g of those expected, got a difference of %.2g.\n",
          allowed, difference);
  return false;
}

static bool read_token(const char *folder, uint8_t token[VIT_TOKEN_BYTES]) {
  char path[4096], text[2 * VIT_TOKEN_BYTES + 1] = "";
  FILE *file;
  if (snprintf(path, sizeof path, "%s/token", folder) >= (int)sizeof path) path[0] = 0;
  file = fopen(path, "r");
  if (file != NULL) {
    if (fread(text, 1, sizeof text - 1, file) < sizeof text - 1) text[0] = 0;
    fclose(file);
  }
  if (vit_token(text, token)) return true;
  fprintf(stderr, "%s/token: must hold the secret of the deployment, 64 hexadecimal digits.\n", folder);
  return false;
}

static bool read_hold(board *b, const char *text) {
  static const char *const PARTS[3] = {"send=", "compute=", "return="};
  uint64_t *times[3];
  times[0] = &b->send_us, times[1] = &b->compute_us, times[2] = &b->return_us;
  while (*text != 0) {
    unsigned part = 0;
    char *end = NULL;
    while (part < 3 && strncmp(text, PARTS[part], strlen(PARTS[part])) != 0) part++;
    if (part == 3) return false;
    text += strlen(PARTS[part]);
    if (*text < '0' || *text > '9') return false;
    *times[part] = strtoull(text, &end, 10);
    if (end - text > 10 || (*end != ',' && *end != 0)) return false;
    text = *end == ',' ? end + 1 : end;
  }
  return true;
}

#ifdef VIT_TLS
static bool prepare(network *n, const char *folder, bool is_loopback) {
  char certificate[4096], key[4096];
  const char *reason = NULL;
  vit_tls_begin(n, log_line);
  if (is_loopback) return true;
  snprintf(certificate, sizeof certificate, "%s/certificate.pem", folder);
  snprintf(key, sizeof key, "%s/key.pem", folder);
  reason = vit_tls_load(n, certificate, key);
  if (reason == NULL) return true;
  fprintf(stderr, "%s: certificate and key.pem must be readable and belong together (%s).\n", certificate, reason);
  return false;
}

static void end(network *n) { vit_tls_end(n); }
#else
static bool prepare(network *n, const char *folder, bool is_loopback) {
  (void)folder;
  if (!is_loopback)
    log_line(n, -1, "beyond loopback bytes are not encrypted: the token keeps strangers out, all can read");
  return true;
}

static void end(network *n) { (void)n; }
#endif

static bool listen_on(network *n, const char *address, const address_parsed *parsed) {
  if (vit_sockets_listen(&n->sockets, (const struct sockaddr *)&parsed->address, parsed->size)) return true;
  fprintf(stderr, "%s: cannot be listened on (%s).\n", address, strerror(errno));
  return false;
}

static int serve(board *b, const char *folder, const char *address) {
  static char about[4096];
  uint8_t token[VIT_TOKEN_BYTES];
  char said[ADDRESS_TEXT_BYTES];
  vit_device device = DEVICE;
  const vit_platform platform = {b,      NETWORK(accept), NETWORK(read), NETWORK(write), NETWORK(close), wait_for_peers,
                                 now_us, draw,            peak_memory,   log_line,       compute};
  address_parsed parsed;
  if (!read_token(folder, token)) return 1;
  if (!address_parse(address, &parsed)) {
    fprintf(stderr, "address must be an IP address and a port, such as 192.168.0.11:7447, got '%.200s'.\n", address);
    return 1;
  }
  if (!prepare(&b->network, folder, parsed.is_loopback) || !listen_on(&b->network, address, &parsed)) {
    end(&b->network);
    return 1;
  }
  snprintf(about, sizeof about, "{\"held\":[%s%s%s%s%s],%s", b->send_us ? "\"send\"" : "",
           b->send_us && (b->compute_us || b->return_us) ? "," : "", b->compute_us ? "\"compute\"" : "",
           b->compute_us && b->return_us ? "," : "", b->return_us ? "\"return\"" : "", DEVICE.about + 1);
  device.about = about;
  printf("listening on %s\n", address_of_listener(b->network.sockets.listener, said));
  fflush(stdout);
  vit_worker_begin(&b->worker, &device, &platform, token, image, reply);
  vit_worker_run(&b->worker);
  close(b->network.sockets.listener);
  end(&b->network);
  return 0;
}

static int complain(const char *about) {
  fprintf(stderr, "usage: worker FOLDER [--listen HOST:PORT] [--self-test] [--hold PART=US,...] [--marks FILE]: %s\n",
          about);
  return 2;
}

int main(int count, char **arguments) {
  static board b;
  struct sigaction action;
  const char *address = DEFAULT_ADDRESS;
  bool is_test = false;
  if (count < 2) return complain("the folder must be given");
  for (int i = 2; i < count; i++) {
    const char *option = arguments[i], *value = i + 1 < count ? arguments[i + 1] : NULL;
    if (strcmp(option, "--self-test") == 0) {
      is_test = true;
      continue;
    }
    if (value == NULL) return complain(option);
    if (strcmp(option, "--listen") == 0) address = value;
    else if (strcmp(option, "--hold") == 0) {
      if (!read_hold(&b, value)) return complain(value);
    } else if (strcmp(option, "--marks") == 0) {
      b.marks = fopen(value, "wb");
      if (b.marks == NULL) return complain(value);
    } else return complain(option);
    i++;
  }
  memset(&action, 0, sizeof action);
  action.sa_handler = stop;
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);
#ifdef __linux__
  /* Held times end on time. */
  prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
#endif
  if (!passes_self_test()) return 1;
  return is_test ? 0 : serve(&b, arguments[1], address);
}
