/* One GET of a probe to a server on this machine, over HTTP or TLS; for `dtrnet health`. */
#pragma once
#include "common/buf.h"
#include "common/err.h"
#include <stdbool.h>

struct probe {
    const char *host; /* an address; one that stands for all means the loopback's */
    int port;
    bool tls; /* the certificate is not checked: it is this machine's own server, and names another host */
    const char *path;
    double timeout_s; /* for all of it */
};

/* *ret_status: the answer's; `body` gets its body. ERR_IO: nobody answered in time. */
int probe_get(const struct probe *p, int *ret_status, struct buf *body, struct err *err);
