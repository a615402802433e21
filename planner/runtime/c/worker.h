/* Worker of a device in portable C99: answers an aggregator's images, one at a time.
 *
 * It speaks the frames of the Python worker over the callbacks of a platform, allocates nothing and never waits but in
 * `wait` and `write`. One aggregator is served; a second one that proves the token takes its place if the first is
 * silent. It encrypts nothing: where its platform does not either, the token keeps strangers out, and does not keep them
 * from reading. On POSIX systems tls.h does.
 */
#ifndef VIT_WORKER_H
#define VIT_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Connections at once: the one that is served, one that asks for its place, and those that have not proved the token. */
#ifndef VIT_MAX_PEERS
#define VIT_MAX_PEERS 4
#endif

/* Time for a peer to prove that it has the token. */
#ifndef VIT_PROOF_MS
#define VIT_PROOF_MS 5000
#endif

#define VIT_TOKEN_BYTES 32
#define VIT_NONCE_BYTES 16
#define VIT_HASH_BYTES 32
/* Reply before the features, which begin at the seventh float of the reply's buffer. */
#define VIT_REPLY_FLOATS(num_features) (6 + (num_features))

/* Sub-model of a device folder, as the aggregator knows it. */
typedef struct {
  const char *about; /* JSON of the hello, at most 4 KiB */
  uint8_t bundle[VIT_HASH_BYTES];
  uint32_t image_bytes;
  uint8_t value_bytes; /* of each value of an image: 1 or 4 */
  uint32_t num_features;
} vit_device;

typedef struct {
  uint64_t id;
  uint64_t arrived_us; /* when the image was there; its beginning, if another was computed then */
  uint32_t deadline_us; /* from its arrival on */
} vit_request;

/* Callbacks of a platform; the context is its own. Connections are numbers of its choice, at least 0. */
typedef struct {
  void *context;
  /* Return a peer that has connected, or -1 if there is none now. */
  int (*accept)(void *context);
  /* Return how many bytes were read, without waiting: 0 if there are none now, -1 if the connection is lost. */
  int32_t (*read)(void *context, int connection, void *bytes, size_t room);
  /* Write all bytes, giving up after a second in which none is taken; return whether all were. */
  bool (*write)(void *context, int connection, const void *bytes, size_t count);
  void (*close)(void *context, int connection);
  /* Wait for so long, or until a peer connects or one of these connections has bytes; return false to end. */
  bool (*wait)(void *context, const int *connections, unsigned count, uint32_t max_ms);
  /* Return the time since any fixed moment. */
  uint64_t (*now_us)(void *context);
  /* Draw bytes that nobody can guess; return false if that is not possible. */
  bool (*random)(void *context, void *bytes, size_t count);
  /* Return the peak memory of the worker [bytes], 0 if it is not known. */
  uint64_t (*peak_memory)(void *context);
  /* Take a line of the log; connection is -1 where it is about none. */
  void (*log)(void *context, int connection, const char *what);
  /* Compute the features of an image as it was sent, and return how long that took [us]; vit_worker_pause is to be
   * called now and then meanwhile. */
  uint32_t (*compute)(void *context, const vit_request *request, const void *image, float *features);
} vit_platform;

typedef struct {
  int connection;
  uint8_t phase;
  uint8_t nonce[VIT_NONCE_BYTES];
  uint64_t expires_us;
  uint64_t arrived_us; /* of a request that waits for the one that is computed; 0 if none does */
  uint8_t head[5 + 64]; /* a frame without its image */
  uint32_t filled;      /* bytes of the frame that are there */
} vit_peer;

typedef struct {
  const vit_device *device;
  const vit_platform *platform;
  const uint8_t *token;
  uint8_t *image;
  float *reply;
  vit_peer peers[VIT_MAX_PEERS];
  vit_peer *served, *contender;
  uint32_t num_served; /* aggregators so far */
  uint64_t ping;       /* id of the last ping: an older pong shows nothing */
  uint64_t looked_us;
  bool is_computing, is_silent;
} vit_worker;

/* Read a token of 64 hexadecimal digits; return false if it is none. */
bool vit_token(const char *text, uint8_t token[VIT_TOKEN_BYTES]);

/* Make a worker ready. Device, platform, token (32 bytes), image (image_bytes, aligned as its values are) and reply
 * (VIT_REPLY_FLOATS) stay the caller's and must outlive it. */
void vit_worker_begin(vit_worker *worker, const vit_device *device, const vit_platform *platform, const uint8_t *token,
                      void *image, float *reply);

/* Answer until the platform's wait returns false, then close all connections. */
void vit_worker_run(vit_worker *worker);

/* Answer pings, and note what arrives, while an image is computed; takes a vit_worker. */
void vit_worker_pause(void *worker);

#endif
