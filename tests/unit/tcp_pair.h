/* A connected pair of TCP sockets over the loopback. */
#pragma once
#include "tests/check.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

/* [0] the server's end, [1] the client's. */
static inline bool tcp_pair(int ret[2])
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    struct sockaddr *any = (struct sockaddr *)&a;
    int l = socket(AF_INET, SOCK_STREAM, 0);
    ret[1] = socket(AF_INET, SOCK_STREAM, 0);
    bool ok = !bind(l, any, len) && !listen(l, 1) && !getsockname(l, any, &len) && !connect(ret[1], any, len);
    ret[0] = ok ? accept(l, NULL, NULL) : -1;
    close(l);
    return CHECK(ok && ret[0] >= 0);
}
