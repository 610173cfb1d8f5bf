/* Growable bytes with a hard maximum given at init. Always NUL-terminated past `len`. */
#pragma once
#include <stddef.h>

struct buf {
    char *data; /* [len + 1]; "" before the first append */
    size_t len;
    size_t cap_bytes; /* allocated */
    size_t max_bytes; /* appends that would exceed it fail with ERR_TOO_LARGE */
};

void buf_init(struct buf *b, size_t max_bytes);
void buf_done(struct buf *b);                   /* frees; the buf is empty and usable again */
void buf_clear(struct buf *b);                  /* len = 0, memory kept */
char *buf_take(struct buf *b, size_t *ret_len); /* hands the malloc'ed bytes over; NULL: no memory */
/* 0, ERR_TOO_LARGE or ERR_NOMEM; on error the buf is unchanged. */
int buf_reserve(struct buf *b, size_t n); /* room for n more bytes and the NUL, which who writes them accounts for */
int buf_append(struct buf *b, const void *bytes, size_t n);
int buf_puts(struct buf *b, const char *s);
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
