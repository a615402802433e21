/* lwIP's names of sockets, as its own header gives them to a firmware, on top of this machine's. */
#ifndef LWIP_STUB_SOCKETS_H
#define LWIP_STUB_SOCKETS_H

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#endif
