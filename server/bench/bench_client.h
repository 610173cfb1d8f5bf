/* A small HTTP/1.1 client for the loopback: one connection that is kept, one request at a time. It measures this program's own server, and
 * reads no more of the protocol than that one uses (Content-Length, no chunks). */
#pragma once
#include "common/buf.h"
#include "common/err.h"

struct bench_client {
    int fd;         /* -1: none */
    struct buf in;  /* the latest answer, headers included */
    size_t body_at; /* where its body begins */
};

/* Connects to 127.0.0.1. On error nothing is left open. */
int bench_client_open(int port, struct bench_client *ret, struct err *err);
void bench_client_close(struct bench_client *c);
/* Appends a whole POST request with this JSON body to out. */
int bench_client_compose(const char *path, const struct buf *body, struct buf *out, struct err *err);
/* Sends a composed request and reads the whole answer; a status other than 200 is an error that holds the server's text. */
int bench_client_send(struct bench_client *c, const struct buf *request, struct err *err);
