/* Connections of a worker over BSD sockets: those of POSIX systems, or of lwIP with VIT_LWIP defined. */
#ifndef VIT_SOCKETS_H
#define VIT_SOCKETS_H

#ifdef VIT_LWIP
#include "lwip/sockets.h"
#else
#include <sys/socket.h>
#endif

#include "worker.h"

/* First member of a platform's context: the callbacks below take it. */
typedef struct {
  int listener;
} vit_sockets;

/* Listen on an address; return false, with the reason in errno, if that is not possible. */
bool vit_sockets_listen(vit_sockets *sockets, const struct sockaddr *address, socklen_t size);

/* Wait until a connection takes bytes; return false if it takes none for a second. */
bool vit_sockets_wait_to_write(int connection);

int vit_sockets_accept(void *context);
int32_t vit_sockets_read(void *context, int connection, void *bytes, size_t room);
bool vit_sockets_write(void *context, int connection, const void *bytes, size_t count);
void vit_sockets_close(void *context, int connection);
bool vit_sockets_wait(void *context, const int *connections, unsigned count, uint32_t max_ms);

#endif
