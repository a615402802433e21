#include "worker.h"

#include <string.h>

#include "sha256.h"

#define PROTOCOL 1
#define STEP_MS 250
#define PONG_US 500000u
/* Between two looks at the connections while an image is computed. */
#define LOOK_US 2000u

enum { HEADER_BYTES = 5, PROOF_BYTES = 64, REQUEST_BYTES = 12, REPLY_BYTES = 17, PING_BYTES = 8, PONG_BYTES = 16 };
enum { HELLO = 1, PROOF = 2, REQUEST = 3, REPLY = 4, PING = 5, PONG = 6 };
enum { ANSWERED = 0, LATE = 2 };
enum { UNUSED = 0, GREETED, WAITING, SERVED };

static void put(uint8_t *to, uint64_t value, unsigned num_bytes) {
  for (unsigned i = 0; i < num_bytes; i++) to[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *from, unsigned num_bytes) {
  uint64_t value = 0;
  for (unsigned i = 0; i < num_bytes; i++) value |= (uint64_t)from[i] << (8 * i);
  return value;
}

/* Turn values of four bytes between the frame's order, little-endian, and this processor's. */
static void turn_values(void *values, uint32_t count) {
  const uint16_t one = 1;
  uint8_t first, *v = values;
  memcpy(&first, &one, 1);
  if (first == 1) return;
  for (uint32_t i = 0; i < count; i++, v += 4) {
    const uint8_t a = v[0], b = v[1];
    v[0] = v[3], v[1] = v[2], v[2] = b, v[3] = a;
  }
}

/* Takes the same time wherever the bytes differ. */
static bool are_equal(const uint8_t *a, const uint8_t *b, size_t count) {
  volatile uint8_t differ = 0;
  for (size_t i = 0; i < count; i++) differ = (uint8_t)(differ | (a[i] ^ b[i]));
  return differ == 0;
}

static uint64_t now(const vit_worker *w) { return w->platform->now_us(w->platform->context); }

static uint32_t as_u32(uint64_t value) { return value < UINT32_MAX ? (uint32_t)value : UINT32_MAX; }

static void serve(vit_worker *w, vit_peer *p) {
  p->phase = SERVED;
  w->served = p;
  w->num_served++;
  w->is_silent = false;
  w->platform->log(w->platform->context, p->connection, "served");
}

static void drop(vit_worker *w, vit_peer *p, const char *reason) {
  vit_peer *contender = w->contender;
  if (p->phase == UNUSED) return;
  w->platform->log(w->platform->context, p->connection, reason);
  w->platform->close(w->platform->context, p->connection);
  p->phase = UNUSED;
  if (p == contender) w->contender = NULL;
  if (p == w->served) {
    w->served = w->contender = NULL;
    if (contender != NULL) serve(w, contender);
  }
}

static void send_frame(vit_worker *w, vit_peer *p, const void *bytes, size_t count) {
  if (!w->platform->write(w->platform->context, p->connection, bytes, count)) drop(w, p, "lost while it was written to");
}

static void send_live(vit_worker *w, vit_peer *p, uint8_t type, uint64_t id) {
  uint8_t frame[HEADER_BYTES + PONG_BYTES];
  const uint32_t size = type == PING ? PING_BYTES : PONG_BYTES;
  put(frame, size, 4);
  frame[4] = type;
  put(frame + HEADER_BYTES, id, 8);
  if (type == PONG) put(frame + HEADER_BYTES + 8, w->platform->peak_memory(w->platform->context), 8);
  send_frame(w, p, frame, HEADER_BYTES + size);
}

static void greet(vit_worker *w, vit_peer *p, int connection) {
  const size_t about_bytes = strlen(w->device->about);
  uint8_t start[HEADER_BYTES + 4 + 2 + VIT_NONCE_BYTES + VIT_HASH_BYTES];
  memset(p, 0, sizeof *p);
  p->connection = connection;
  p->phase = GREETED;
  p->expires_us = now(w) + 1000 * (uint64_t)VIT_PROOF_MS;
  if (!w->platform->random(w->platform->context, p->nonce, sizeof p->nonce)) {
    drop(w, p, "refused, as no random number can be drawn");
    return;
  }
  put(start, sizeof start - HEADER_BYTES + about_bytes, 4);
  start[4] = HELLO;
  memcpy(start + 5, "VITP", 4);
  put(start + 9, PROTOCOL, 2);
  memcpy(start + 11, p->nonce, VIT_NONCE_BYTES);
  memcpy(start + 27, w->device->bundle, VIT_HASH_BYTES);
  send_frame(w, p, start, sizeof start);
  if (p->phase != UNUSED) send_frame(w, p, w->device->about, about_bytes);
}

static void accept_peers(vit_worker *w) {
  const int connection = w->platform->accept(w->platform->context);
  vit_peer *oldest = NULL, *place = NULL;
  if (connection < 0) return;
  for (unsigned i = 0; i < VIT_MAX_PEERS; i++) {
    vit_peer *p = w->peers + i;
    if (p->phase == UNUSED) place = p;
    if (p->phase == GREETED && (oldest == NULL || p->expires_us < oldest->expires_us)) oldest = p;
  }
  if (place == NULL && oldest != NULL) {
    drop(w, oldest, "too many peers that have not proved the token");
    place = oldest;
  }
  if (place != NULL) greet(w, place, connection);
  else w->platform->close(w->platform->context, connection);
}

static void check_proof(vit_worker *w, vit_peer *p) {
  uint8_t expected[SHA256_BYTES];
  hmac_sha256(w->token, VIT_TOKEN_BYTES, p->nonce, VIT_NONCE_BYTES, expected);
  if (!are_equal(p->head + HEADER_BYTES, expected, SHA256_BYTES)) {
    drop(w, p, "refused, as its token is not this device's");
  } else if (!are_equal(p->head + HEADER_BYTES + SHA256_BYTES, w->device->bundle, VIT_HASH_BYTES)) {
    drop(w, p, "refused, as it runs another bundle");
  } else if (w->served == NULL) {
    serve(w, p);
  } else if (w->contender != NULL) {
    drop(w, p, "refused, as another aggregator is served");
  } else {
    p->phase = WAITING;
    p->expires_us = now(w) + PONG_US;
    w->contender = p;
    send_live(w, w->served, PING, ++w->ping);
  }
}

static void answer(vit_worker *w, vit_peer *p, const vit_request *request) {
  uint8_t *frame = (uint8_t *)w->reply + 2;
  const uint32_t number = w->num_served;
  uint32_t compute_us = 0, features_bytes = 0;
  uint8_t status = LATE;
  if (now(w) - request->arrived_us <= request->deadline_us) {
    w->is_computing = true;
    compute_us = w->platform->compute(w->platform->context, request, w->image, w->reply + 6);
    w->is_computing = false;
    /* The place of a peer that was lost meanwhile may be another's. */
    if (w->served != p || w->num_served != number) return;
    turn_values(w->reply + 6, w->device->num_features);
    features_bytes = 4 * w->device->num_features;
    status = ANSWERED;
  }
  put(frame, REPLY_BYTES + features_bytes, 4);
  frame[4] = REPLY;
  put(frame + 5, request->id, 8);
  frame[13] = status;
  put(frame + 14, compute_us, 4);
  put(frame + 18, as_u32(now(w) - request->arrived_us), 4);
  send_frame(w, p, frame, HEADER_BYTES + REPLY_BYTES + features_bytes);
}

static void handle_request(vit_worker *w, vit_peer *p) {
  vit_request request;
  request.id = get(p->head + HEADER_BYTES, 8);
  request.deadline_us = (uint32_t)get(p->head + HEADER_BYTES + 8, 4);
  request.arrived_us = p->arrived_us != 0 ? p->arrived_us : now(w);
  p->arrived_us = 0;
  if (w->device->value_bytes == 4) turn_values(w->image, w->device->image_bytes / 4);
  answer(w, p, &request);
}

static void handle_frame(vit_worker *w, vit_peer *p) {
  const uint64_t id = get(p->head + HEADER_BYTES, 8);
  /* The next frame may begin while this one is answered. */
  p->filled = 0;
  if (p->head[4] == PROOF) {
    check_proof(w, p);
  } else if (p->head[4] == REQUEST) {
    handle_request(w, p);
  } else if (p->head[4] == PING) {
    send_live(w, p, PONG, id);
  } else if (w->contender != NULL && id == w->ping) {
    drop(w, w->contender, "refused, as another aggregator is served");
  }
}

/* Return the size that the payload of a frame must have; 0 if it may not come now. */
static uint32_t payload_bytes(const vit_worker *w, const vit_peer *p) {
  if (p->phase == GREETED) return p->head[4] == PROOF ? PROOF_BYTES : 0;
  if (p->head[4] == REQUEST) return REQUEST_BYTES + w->device->image_bytes;
  if (p->head[4] == PING) return PING_BYTES;
  return p->head[4] == PONG ? PONG_BYTES : 0;
}

/* Read up to a frame, and act on it when it is complete. */
static void receive(vit_worker *w, vit_peer *p) {
  for (;;) {
    const uint32_t size = p->filled < HEADER_BYTES ? 0 : payload_bytes(w, p);
    const bool has_image = size > 0 && p->head[4] == REQUEST;
    const uint32_t head_end = HEADER_BYTES + (has_image ? (uint32_t)REQUEST_BYTES : size);
    uint8_t *to = p->head + p->filled;
    uint32_t missing = head_end - p->filled;
    int32_t got;
    if (missing == 0 && has_image) {
      if (w->is_computing) {
        if (p->arrived_us == 0) p->arrived_us = now(w);
        w->is_silent = false;
        return;
      }
    }
    if (p->filled >= head_end) {
      to = w->image + (p->filled - head_end);
      missing = HEADER_BYTES + size - p->filled;
    }
    got = w->platform->read(w->platform->context, p->connection, to, missing);
    if (p == w->served) w->is_silent = got == 0;
    if (got < 0) drop(w, p, "closed by the other side");
    if (got <= 0) return;
    p->filled += (uint32_t)got;
    if (p->filled == HEADER_BYTES) {
      const uint32_t expected = payload_bytes(w, p);
      if (expected == 0) {
        drop(w, p, "a frame of this type may not come now");
        return;
      }
      if (get(p->head, 4) != expected) {
        drop(w, p, "a frame must have the size of its type");
        return;
      }
    } else if (p->filled > HEADER_BYTES && p->filled == HEADER_BYTES + size) {
      handle_frame(w, p);
      return;
    }
  }
}

static void expire(vit_worker *w) {
  const uint64_t moment = now(w);
  for (unsigned i = 0; i < VIT_MAX_PEERS; i++)
    if (w->peers[i].phase == GREETED && w->peers[i].expires_us <= moment)
      drop(w, w->peers + i, "no proof of the token in time");
  if (w->contender != NULL && w->contender->expires_us <= moment && w->is_silent)
    drop(w, w->served, "silent for 0.5 s while another aggregator asks");
}

static void step(vit_worker *w) {
  for (unsigned i = 0; i < VIT_MAX_PEERS; i++)
    if (w->peers[i].phase == GREETED || w->peers[i].phase == SERVED) receive(w, w->peers + i);
  expire(w);
  /* Last, so that whoever is there already comes first. */
  accept_peers(w);
}

bool vit_token(const char *text, uint8_t token[VIT_TOKEN_BYTES]) {
  static const char DIGITS[] = "0123456789abcdef";
  for (unsigned i = 0; i < 2 * VIT_TOKEN_BYTES; i++) {
    const char *digit = text[i] == 0 ? NULL : strchr(DIGITS, text[i]);
    if (digit == NULL) return false;
    if (i % 2 == 0) token[i / 2] = (uint8_t)((digit - DIGITS) << 4);
    else token[i / 2] = (uint8_t)(token[i / 2] | (digit - DIGITS));
  }
  return true;
}

void vit_worker_begin(vit_worker *worker, const vit_device *device, const vit_platform *platform, const uint8_t *token,
                      void *image, float *reply) {
  memset(worker, 0, sizeof *worker);
  worker->device = device;
  worker->platform = platform;
  worker->token = token;
  worker->image = image;
  worker->reply = reply;
}

void vit_worker_run(vit_worker *worker) {
  int connections[VIT_MAX_PEERS];
  unsigned count;
  do {
    step(worker);
    count = 0;
    for (unsigned i = 0; i < VIT_MAX_PEERS; i++)
      if (worker->peers[i].phase == GREETED || worker->peers[i].phase == SERVED)
        connections[count++] = worker->peers[i].connection;
  } while (worker->platform->wait(worker->platform->context, connections, count, STEP_MS));
  for (unsigned i = 0; i < VIT_MAX_PEERS; i++) drop(worker, worker->peers + i, "closed, as the worker ends");
}

void vit_worker_pause(void *worker) {
  vit_worker *w = worker;
  const uint64_t moment = now(w);
  if (moment - w->looked_us < LOOK_US) return;
  w->looked_us = moment;
  step(w);
}
