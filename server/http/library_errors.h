/* Errors that libmicrohttpd answers by itself (a header that is too large, chunks that are none), in the server's own shape.
 *
 * The library has no hook for them: it makes a page of HTML with MHD_create_response_from_buffer (from 1.0 on ..._static) and sends it. These
 * two functions are defined here instead, so the library's calls come here, as the rules of dynamic linking say. The server itself makes its
 * answers with other functions. Where a library binds its own calls, its pages stay HTML. */
#pragma once
#include "common/buf.h"
#include "common/err.h"
#include <stdbool.h>

/* How an error is written; once, before the first connection. */
void library_errors_write_with(int (*write)(struct buf *out, const struct err *err));
/* On a connection's thread: what comes is about this socket. */
void library_errors_on(int fd, bool tls);
/* What the library logs, on the connection's thread and just before it makes the page. True: it tells of such an error. */
bool library_errors_note(const char *line);
