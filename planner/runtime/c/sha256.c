#include "sha256.h"

#include <string.h>

static const uint32_t ROUND[64] = {
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotated(uint32_t value, unsigned by) { return (value >> by) | (value << (32 - by)); }

static void add_block(uint32_t state[8], const uint8_t block[SHA256_BLOCK_BYTES]) {
  uint32_t w[64], v[8];
  for (unsigned i = 0; i < 16; i++)
    w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
           (uint32_t)block[4 * i + 3];
  for (unsigned i = 16; i < 64; i++) {
    const uint32_t a = w[i - 15], b = w[i - 2];
    w[i] = w[i - 16] + (rotated(a, 7) ^ rotated(a, 18) ^ (a >> 3)) + w[i - 7] +
           (rotated(b, 17) ^ rotated(b, 19) ^ (b >> 10));
  }
  memcpy(v, state, sizeof v);
  for (unsigned i = 0; i < 64; i++) {
    const uint32_t sum1 = rotated(v[4], 6) ^ rotated(v[4], 11) ^ rotated(v[4], 25);
    const uint32_t first = v[7] + sum1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + ROUND[i] + w[i];
    const uint32_t sum0 = rotated(v[0], 2) ^ rotated(v[0], 13) ^ rotated(v[0], 22);
    const uint32_t second = sum0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
    memmove(v + 1, v, 7 * sizeof v[0]);
    v[4] += first;
    v[0] = first + second;
  }
  for (unsigned i = 0; i < 8; i++) state[i] += v[i];
}

void sha256_begin(sha256 *hash) {
  static const uint32_t START[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  memcpy(hash->state, START, sizeof START);
  hash->num_bytes = 0;
}

void sha256_add(sha256 *hash, const void *bytes, size_t count) {
  const uint8_t *from = bytes;
  while (count > 0) {
    const size_t at = (size_t)(hash->num_bytes % SHA256_BLOCK_BYTES);
    const size_t room = SHA256_BLOCK_BYTES - at, taken = count < room ? count : room;
    memcpy(hash->block + at, from, taken);
    hash->num_bytes += taken;
    from += taken;
    count -= taken;
    if (taken == room) add_block(hash->state, hash->block);
  }
}

void sha256_end(sha256 *hash, uint8_t digest[SHA256_BYTES]) {
  static const uint8_t PADDING[SHA256_BLOCK_BYTES] = {0x80};
  const uint64_t num_bits = 8 * hash->num_bytes;
  const size_t at = (size_t)(hash->num_bytes % SHA256_BLOCK_BYTES);
  uint8_t length[8];
  for (unsigned i = 0; i < 8; i++) length[i] = (uint8_t)(num_bits >> (56 - 8 * i));
  /* The length ends the last block: one more block where it has no room behind the first bit of the padding. */
  sha256_add(hash, PADDING, at < 56 ? 56 - at : 120 - at);
  sha256_add(hash, length, sizeof length);
  for (unsigned i = 0; i < SHA256_BYTES; i++) digest[i] = (uint8_t)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
}

static void hash_padded(const uint8_t key[SHA256_BLOCK_BYTES], uint8_t pad, const void *bytes, size_t count,
                        uint8_t digest[SHA256_BYTES]) {
  sha256 hash;
  uint8_t padded[SHA256_BLOCK_BYTES];
  for (unsigned i = 0; i < SHA256_BLOCK_BYTES; i++) padded[i] = key[i] ^ pad;
  sha256_begin(&hash);
  sha256_add(&hash, padded, sizeof padded);
  sha256_add(&hash, bytes, count);
  sha256_end(&hash, digest);
}

void hmac_sha256(const void *key, size_t key_bytes, const void *message, size_t message_bytes,
                 uint8_t digest[SHA256_BYTES]) {
  uint8_t block[SHA256_BLOCK_BYTES] = {0}, inner[SHA256_BYTES];
  if (key_bytes > sizeof block) {
    sha256 hash;
    sha256_begin(&hash);
    sha256_add(&hash, key, key_bytes);
    sha256_end(&hash, block);
  } else if (key_bytes > 0) {
    memcpy(block, key, key_bytes);
  }
  hash_padded(block, 0x36, message, message_bytes, inner);
  hash_padded(block, 0x5c, inner, sizeof inner, digest);
}
