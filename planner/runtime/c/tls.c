#define _POSIX_C_SOURCE 200809L
#include "tls.h"

#include <errno.h>
#include <mbedtls/error.h>
#include <mbedtls/version.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "address.h"
#if MBEDTLS_VERSION_MAJOR >= 3 && defined(MBEDTLS_PSA_CRYPTO_C)
#include <psa/crypto.h>
#endif

static uint64_t now_us(void) {
  struct timespec moment;
  clock_gettime(CLOCK_MONOTONIC, &moment);
  return (uint64_t)moment.tv_sec * 1000000u + (uint64_t)moment.tv_nsec / 1000;
}

static vit_tls_peer *find(vit_tls *tls, int connection) {
  for (unsigned i = 0; i < VIT_MAX_SECURED; i++)
    if (tls->peers[i].connection == connection) return tls->peers + i;
  return NULL;
}

static bool is_for_later(void) { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

static int receive_sealed(void *context, unsigned char *bytes, size_t room) {
  vit_tls_peer *p = context;
  const ssize_t got = recv(p->connection, bytes, room, MSG_DONTWAIT);
  if (got < 0) return is_for_later() ? MBEDTLS_ERR_SSL_WANT_READ : MBEDTLS_ERR_SSL_CONN_EOF;
  p->has_received = true;
  return (int)got;
}

static int send_sealed(void *context, const unsigned char *bytes, size_t count) {
  const vit_tls_peer *p = context;
  const ssize_t sent = send(p->connection, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0) return is_for_later() ? MBEDTLS_ERR_SSL_WANT_WRITE : MBEDTLS_ERR_SSL_CONN_EOF;
  return (int)sent;
}

static bool wants_more(int result) {
  return result == MBEDTLS_ERR_SSL_WANT_READ || result == MBEDTLS_ERR_SSL_WANT_WRITE;
}

static void release(vit_tls *tls, vit_tls_peer *p) {
  mbedtls_ssl_free(&p->ssl);
  vit_sockets_close(tls, p->connection);
  p->connection = -1;
}

static void refuse(vit_tls *tls, vit_tls_peer *p, const char *reason) {
  tls->log(tls, p->connection, reason);
  release(tls, p);
}

/* Return a free place; the oldest handshake makes room if there are too many. */
static vit_tls_peer *place(vit_tls *tls) {
  vit_tls_peer *free_place = NULL, *oldest = NULL;
  unsigned num_handshakes = 0;
  for (unsigned i = 0; i < VIT_MAX_SECURED; i++) {
    vit_tls_peer *p = tls->peers + i;
    if (p->connection < 0) free_place = p;
    else if (!p->is_secured) {
      num_handshakes++;
      if (oldest == NULL || p->expires_us < oldest->expires_us) oldest = p;
    }
  }
  if (oldest == NULL || (free_place != NULL && num_handshakes < VIT_MAX_HANDSHAKES)) return free_place;
  refuse(tls, oldest, "too many peers whose TLS handshake is not done");
  return oldest;
}

static void begin_handshake(vit_tls *tls, int connection) {
  vit_tls_peer *p = tls->is_loaded ? place(tls) : NULL;
  if (p == NULL) {
    vit_sockets_close(tls, connection);
    return;
  }
  memset(p, 0, sizeof *p);
  p->connection = connection;
  p->expires_us = now_us() + 1000 * (uint64_t)VIT_PROOF_MS;
  mbedtls_ssl_init(&p->ssl);
  if (mbedtls_ssl_setup(&p->ssl, &tls->config) != 0) {
    refuse(tls, p, "refused, as there is no memory for TLS");
    return;
  }
  mbedtls_ssl_set_bio(&p->ssl, p, send_sealed, receive_sealed, NULL);
}

/* Go on with a handshake; return whether it is done. */
static bool is_done(vit_tls *tls, vit_tls_peer *p) {
  char what[160] = "no TLS handshake: ";
  const int result = mbedtls_ssl_handshake(&p->ssl);
  if (result == 0) return p->is_secured = true;
  if (!wants_more(result)) {
    mbedtls_strerror(result, what + strlen(what), sizeof what - strlen(what));
    refuse(tls, p, what);
  } else if (p->expires_us <= now_us()) {
    refuse(tls, p, "no TLS handshake in time");
  }
  return false;
}

void vit_tls_begin(vit_tls *tls, void (*log)(void *context, int connection, const char *what)) {
  tls->log = log;
  tls->is_loaded = false;
  tls->next = 0;
  for (unsigned i = 0; i < VIT_MAX_SECURED; i++) tls->peers[i].connection = -1;
  mbedtls_ssl_config_init(&tls->config);
  mbedtls_x509_crt_init(&tls->certificate);
  mbedtls_pk_init(&tls->key);
  mbedtls_entropy_init(&tls->entropy);
  mbedtls_ctr_drbg_init(&tls->random);
}

/* Mbed TLS 3 draws random numbers to keep what it computes with a key from being measured. */
#if MBEDTLS_VERSION_MAJOR < 3
#define WITH_RANDOM(tls)
#else
#define WITH_RANDOM(tls) , mbedtls_ctr_drbg_random, &(tls)->random
#endif

static int load(vit_tls *tls, const char *certificate, const char *key) {
  int result = mbedtls_ctr_drbg_seed(&tls->random, mbedtls_entropy_func, &tls->entropy, NULL, 0);
#if MBEDTLS_VERSION_MAJOR >= 3 && defined(MBEDTLS_PSA_CRYPTO_C)
  /* TLS 1.3 computes with it. */
  if (result == 0) result = (int)psa_crypto_init();
#endif
  if (result == 0) result = mbedtls_x509_crt_parse_file(&tls->certificate, certificate);
  if (result == 0) result = mbedtls_pk_parse_keyfile(&tls->key, key, NULL WITH_RANDOM(tls));
  if (result == 0) result = mbedtls_pk_check_pair(&tls->certificate.pk, &tls->key WITH_RANDOM(tls));
  if (result == 0)
    result = mbedtls_ssl_config_defaults(&tls->config, MBEDTLS_SSL_IS_SERVER, MBEDTLS_SSL_TRANSPORT_STREAM,
                                         MBEDTLS_SSL_PRESET_DEFAULT);
  if (result == 0) result = mbedtls_ssl_conf_own_cert(&tls->config, &tls->certificate, &tls->key);
  mbedtls_ssl_conf_rng(&tls->config, mbedtls_ctr_drbg_random, &tls->random);
#if MBEDTLS_VERSION_MAJOR < 3
  /* Later ones know none before TLS 1.2. */
  mbedtls_ssl_conf_min_version(&tls->config, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
#endif
  return result;
}

const char *vit_tls_load(vit_tls *tls, const char *certificate, const char *key) {
  static char reason[128];
  const int result = load(tls, certificate, key);
  tls->is_loaded = result == 0;
  if (result == 0) return NULL;
  mbedtls_strerror(result, reason, sizeof reason);
  return reason;
}

void vit_tls_end(vit_tls *tls) {
  for (unsigned i = 0; i < VIT_MAX_SECURED; i++)
    if (tls->peers[i].connection >= 0) release(tls, tls->peers + i);
  mbedtls_ssl_config_free(&tls->config);
  mbedtls_x509_crt_free(&tls->certificate);
  mbedtls_pk_free(&tls->key);
  mbedtls_ctr_drbg_free(&tls->random);
  mbedtls_entropy_free(&tls->entropy);
}

int vit_tls_accept(void *context) {
  vit_tls *tls = context;
  const int connection = vit_sockets_accept(context);
  if (connection >= 0 && address_is_loopback_peer(connection)) return connection;
  if (connection >= 0) begin_handshake(tls, connection);
  for (unsigned i = 0; i < VIT_MAX_SECURED; i++) {
    const unsigned number = (tls->next + i) % VIT_MAX_SECURED;
    vit_tls_peer *p = tls->peers + number;
    if (p->connection < 0 || p->is_secured) continue;
    p->has_received = false;
    if (is_done(tls, p)) return p->connection;
    /* A message of a handshake may take long to answer, and an image may be computed meanwhile. */
    if (p->has_received) {
      tls->next = number + 1;
      break;
    }
  }
  return -1;
}

int32_t vit_tls_read(void *context, int connection, void *bytes, size_t room) {
  vit_tls_peer *p = find(context, connection);
  const size_t part = room < INT32_MAX ? room : INT32_MAX;
  int got;
  if (p == NULL) return vit_sockets_read(context, connection, bytes, room);
  got = mbedtls_ssl_read(&p->ssl, bytes, part);
  if (got > 0) return got;
  return wants_more(got) ? 0 : -1;
}

bool vit_tls_write(void *context, int connection, const void *bytes, size_t count) {
  vit_tls_peer *p = find(context, connection);
  const uint8_t *from = bytes;
  if (p == NULL) return vit_sockets_write(context, connection, bytes, count);
  while (count > 0) {
    const int sent = mbedtls_ssl_write(&p->ssl, from, count);
    if (sent > 0) {
      from += sent;
      count -= (size_t)sent;
    } else if (sent == MBEDTLS_ERR_SSL_WANT_WRITE) {
      if (!vit_sockets_wait_to_write(connection)) return false;
    } else {
      return false;
    }
  }
  return true;
}

void vit_tls_close(void *context, int connection) {
  vit_tls *tls = context;
  vit_tls_peer *p = find(tls, connection);
  if (p == NULL) {
    vit_sockets_close(context, connection);
    return;
  }
  (void)mbedtls_ssl_close_notify(&p->ssl);
  release(tls, p);
}

bool vit_tls_wait(void *context, const int *connections, unsigned count, uint32_t max_ms) {
  vit_tls *tls = context;
  int watched[VIT_MAX_PEERS + VIT_MAX_SECURED];
  unsigned num_watched = 0;
  for (unsigned i = 0; i < count && i < VIT_MAX_PEERS; i++) {
    const vit_tls_peer *p = find(tls, connections[i]);
    /* No socket tells of bytes that were decrypted already. */
    if (p != NULL && mbedtls_ssl_get_bytes_avail(&p->ssl) > 0) max_ms = 0;
    watched[num_watched++] = connections[i];
  }
  for (unsigned i = 0; i < VIT_MAX_SECURED; i++)
    if (tls->peers[i].connection >= 0 && !tls->peers[i].is_secured) watched[num_watched++] = tls->peers[i].connection;
  return vit_sockets_wait(context, watched, num_watched, max_ms);
}
