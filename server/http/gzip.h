/* Answers compressed for clients that ask for it: gzip (RFC 1952) by zlib, chosen as RFC 9110 12.5.3 says. A body that is there is compressed at
 * once, a longer answer in pieces as it is made. What the compressor takes is fixed and charged to the request; where that is refused,
 * the answer is sent as it is. */
#pragma once
#include "common/budget.h"
#include "server/http/http.h"

#define GZIP_LEAST_BYTES 1400 /* shorter bodies fit one packet as they are */

/* Does this Accept-Encoding (NULL: none) ask for gzip? */
bool gzip_accepted(const char *accept);
/* Replaces the body by its compressed form. False: it is as it was, because it would not become smaller, or for want of memory. */
bool gzip_body(struct buf *body, struct charge *charge);
/* Wraps a stream whose first bytes are `begun` (emptied) so that its pieces come compressed; memory as said above. False: nothing was done. */
bool gzip_stream(struct http_stream *stream, struct buf *begun, struct charge *charge);
