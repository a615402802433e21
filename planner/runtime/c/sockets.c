#ifndef VIT_LWIP
#define _POSIX_C_SOURCE 200809L
#endif
#include "sockets.h"

#include <errno.h>
#ifndef VIT_LWIP
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/select.h>
#include <unistd.h>
#endif

/* Where a write to a lost connection raises no signal, there is no such flag. */
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif
#define WRITE_S 1
#define BACKLOG 32

bool vit_sockets_listen(vit_sockets *sockets, const struct sockaddr *address, socklen_t size) {
  const int on = 1, listener = socket(address->sa_family, SOCK_STREAM, 0);
  if (listener < 0) return false;
  (void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, address, size) != 0 || listen(listener, BACKLOG) != 0 ||
      fcntl(listener, F_SETFL, O_NONBLOCK) < 0) {
    const int reason = errno;
    close(listener);
    errno = reason;
    return false;
  }
  sockets->listener = listener;
  return true;
}

int vit_sockets_accept(void *context) {
  const vit_sockets *sockets = context;
  const int on = 1, connection = accept(sockets->listener, NULL, NULL);
  if (connection < 0) return -1;
  if (connection >= FD_SETSIZE) {
    close(connection);
    return -1;
  }
  (void)setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return connection;
}

static bool is_for_later(void) { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

int32_t vit_sockets_read(void *context, int connection, void *bytes, size_t room) {
  const size_t part = room < INT32_MAX ? room : INT32_MAX;
  const int32_t got = (int32_t)recv(connection, bytes, part, MSG_DONTWAIT);
  (void)context;
  if (got > 0) return got;
  return got < 0 && is_for_later() ? 0 : -1;
}

bool vit_sockets_wait_to_write(int connection) {
  struct timeval patience = {WRITE_S, 0};
  fd_set writable;
  FD_ZERO(&writable);
  FD_SET(connection, &writable);
  return select(connection + 1, NULL, &writable, NULL, &patience) != 0;
}

bool vit_sockets_write(void *context, int connection, const void *bytes, size_t count) {
  const uint8_t *from = bytes;
  (void)context;
  while (count > 0) {
    const int32_t sent = (int32_t)send(connection, from, count, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) {
      from += sent;
      count -= (size_t)sent;
    } else if (sent < 0 && is_for_later()) {
      if (!vit_sockets_wait_to_write(connection)) return false;
    } else {
      return false;
    }
  }
  return true;
}

void vit_sockets_close(void *context, int connection) {
  (void)context;
  close(connection);
}

bool vit_sockets_wait(void *context, const int *connections, unsigned count, uint32_t max_ms) {
  const vit_sockets *sockets = context;
  struct timeval timeout;
  fd_set readable;
  int last = sockets->listener;
  timeout.tv_sec = (int)(max_ms / 1000);
  timeout.tv_usec = (int)(max_ms % 1000) * 1000;
  FD_ZERO(&readable);
  FD_SET(sockets->listener, &readable);
  for (unsigned i = 0; i < count; i++) {
    FD_SET(connections[i], &readable);
    if (connections[i] > last) last = connections[i];
  }
  (void)select(last + 1, &readable, NULL, NULL, &timeout);
  return true;
}
