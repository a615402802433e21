/* TLS for a worker's connections over POSIX sockets, by Mbed TLS 2.28 or 3: peers beyond loopback speak TLS (1.2 at
 * least), those over loopback plain bytes.
 *
 * A peer is accepted when its handshake is done. Handshakes go on side by side, one message of one of them at each call,
 * and have VIT_PROOF_MS each; where a new peer finds no place, the oldest handshake makes room.
 */
#ifndef VIT_TLS_H
#define VIT_TLS_H

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crt.h>

#include "sockets.h"

/* Handshakes at once. */
#ifndef VIT_MAX_HANDSHAKES
#define VIT_MAX_HANDSHAKES 8
#endif

/* A worker has VIT_MAX_PEERS connections, and one more for as long as it looks for a place for that. */
#define VIT_MAX_SECURED (VIT_MAX_PEERS + 1 + VIT_MAX_HANDSHAKES)

typedef struct {
  int connection; /* -1 if the place is free */
  bool is_secured, has_received;
  uint64_t expires_us;
  mbedtls_ssl_context ssl;
} vit_tls_peer;

typedef struct {
  vit_sockets sockets; /* first, as its callbacks want */
  /* Take a line of the log; the context is the vit_tls. */
  void (*log)(void *context, int connection, const char *what);
  bool is_loaded;
  unsigned next; /* handshake to go on with first */
  vit_tls_peer peers[VIT_MAX_SECURED];
  mbedtls_ssl_config config;
  mbedtls_x509_crt certificate;
  mbedtls_pk_context key;
  mbedtls_entropy_context entropy;
  mbedtls_ctr_drbg_context random;
} vit_tls;

/* Make it ready, but for its sockets, which are to be listened on with vit_sockets_listen. */
void vit_tls_begin(vit_tls *tls, void (*log)(void *context, int connection, const char *what));

/* Load the files, in PEM, of a certificate and its key, without which peers beyond loopback are closed; return NULL, or
 * why they cannot be used. */
const char *vit_tls_load(vit_tls *tls, const char *certificate, const char *key);

/* Close handshakes under way, and free what Mbed TLS has allocated. */
void vit_tls_end(vit_tls *tls);

/* Callbacks of a platform whose context begins with a vit_tls. */
int vit_tls_accept(void *context);
int32_t vit_tls_read(void *context, int connection, void *bytes, size_t room);
bool vit_tls_write(void *context, int connection, const void *bytes, size_t count);
void vit_tls_close(void *context, int connection);
bool vit_tls_wait(void *context, const int *connections, unsigned count, uint32_t max_ms);

#endif
