/* Addresses of POSIX sockets as text: HOST:PORT, with an IPv6 address in brackets. */
#ifndef VIT_ADDRESS_H
#define VIT_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>

#define ADDRESS_TEXT_BYTES 80

typedef struct {
  struct sockaddr_storage address;
  socklen_t size;
  bool is_loopback;
} address_parsed;

/* Read an address; false if it is none. Names but localhost are not looked up: a static program cannot. */
bool address_parse(const char *text, address_parsed *parsed);

/* Write the address of a listening socket, or of a connection's other side, and return the text. */
const char *address_of_listener(int listener, char text[ADDRESS_TEXT_BYTES]);
const char *address_of_peer(int connection, char text[ADDRESS_TEXT_BYTES]);

/* Return whether a connection's other side is on this machine, over loopback. */
bool address_is_loopback_peer(int connection);

#endif
