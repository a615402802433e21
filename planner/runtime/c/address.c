#define _POSIX_C_SOURCE 200809L
#include "address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool split(const char *text, char host[ADDRESS_TEXT_BYTES], uint16_t *port) {
  const char *colon = strrchr(text, ':');
  size_t length = 0, num_digits = 0;
  unsigned long number = 0;
  if (colon == NULL) return false;
  num_digits = strspn(colon + 1, "0123456789");
  if (num_digits == 0 || num_digits > 5 || colon[1 + num_digits] != 0) return false;
  number = strtoul(colon + 1, NULL, 10);
  length = (size_t)(colon - text);
  if (length >= 2 && text[0] == '[' && colon[-1] == ']') text++, length -= 2;
  else if (memchr(text, ':', length) != NULL) return false;
  if (number > UINT16_MAX || length == 0 || length >= ADDRESS_TEXT_BYTES) return false;
  memcpy(host, text, length);
  host[length] = 0;
  *port = (uint16_t)number;
  return true;
}

static bool is_loopback(const struct sockaddr_storage *address) {
  static const uint8_t MAPPED[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
  struct in_addr v4;
  if (address->ss_family == AF_INET) {
    v4 = ((const struct sockaddr_in *)address)->sin_addr;
  } else {
    if (address->ss_family != AF_INET6) return false;
    if (IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr)) return true;
    if (memcmp(v6->sin6_addr.s6_addr, MAPPED, sizeof MAPPED) != 0) return false;
    memcpy(&v4, v6->sin6_addr.s6_addr + sizeof MAPPED, sizeof v4);
  }
  return ntohl(v4.s_addr) >> 24 == 127;
}

bool address_parse(const char *text, address_parsed *parsed) {
  char host[ADDRESS_TEXT_BYTES];
  struct sockaddr_in *v4 = (struct sockaddr_in *)&parsed->address;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&parsed->address;
  uint16_t port = 0;
  memset(parsed, 0, sizeof *parsed);
  if (!split(text, host, &port)) return false;
  if (strcmp(host, "localhost") == 0) strcpy(host, "127.0.0.1");
  if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    parsed->size = sizeof *v4;
    parsed->is_loopback = is_loopback(&parsed->address);
    return true;
  }
  if (inet_pton(AF_INET6, host, &v6->sin6_addr) != 1) return false;
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons(port);
  parsed->size = sizeof *v6;
  parsed->is_loopback = is_loopback(&parsed->address);
  return true;
}

static const char *written(const struct sockaddr_storage *address, char text[ADDRESS_TEXT_BYTES]) {
  char host[INET6_ADDRSTRLEN] = "";
  if (address->ss_family == AF_INET) {
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
    snprintf(text, ADDRESS_TEXT_BYTES, "%s:%u", host, (unsigned)ntohs(v4->sin_port));
  } else {
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
    inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
    snprintf(text, ADDRESS_TEXT_BYTES, "[%s]:%u", host, (unsigned)ntohs(v6->sin6_port));
  }
  return text;
}

const char *address_of_listener(int listener, char text[ADDRESS_TEXT_BYTES]) {
  struct sockaddr_storage address;
  socklen_t size = sizeof address;
  if (getsockname(listener, (struct sockaddr *)&address, &size) != 0) return "nowhere";
  return written(&address, text);
}

const char *address_of_peer(int connection, char text[ADDRESS_TEXT_BYTES]) {
  struct sockaddr_storage address;
  socklen_t size = sizeof address;
  if (getpeername(connection, (struct sockaddr *)&address, &size) != 0) return "a lost peer";
  return written(&address, text);
}

bool address_is_loopback_peer(int connection) {
  struct sockaddr_storage address;
  socklen_t size = sizeof address;
  return getpeername(connection, (struct sockaddr *)&address, &size) == 0 && is_loopback(&address);
}
