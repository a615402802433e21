/* SHA-256 (FIPS 180-4) and HMAC-SHA-256 (RFC 2104), in portable C99 without allocation. */
#ifndef VIT_SHA256_H
#define VIT_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_BYTES 32
#define SHA256_BLOCK_BYTES 64

typedef struct {
  uint32_t state[8];
  uint64_t num_bytes;
  uint8_t block[SHA256_BLOCK_BYTES];
} sha256;

void sha256_begin(sha256 *hash);
void sha256_add(sha256 *hash, const void *bytes, size_t count);
void sha256_end(sha256 *hash, uint8_t digest[SHA256_BYTES]);

void hmac_sha256(const void *key, size_t key_bytes, const void *message, size_t message_bytes,
                 uint8_t digest[SHA256_BYTES]);

#endif
