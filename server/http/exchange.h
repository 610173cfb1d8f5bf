/* One request and its answer, as the files exchange*.c see it. */
#pragma once
#include "server/http/head.h"
#include "server/http/http_private.h"

#define EXCHANGE_PIECE_MAX (1 << 26) /* bytes of one piece of a streamed answer */

/* MHD's con_cls, from the first line to the end of the answer. */
struct http_exchange {
    struct http_server *h;
    struct MHD_Connection *mhd;
    struct connection *connection;
    struct http_request req;
    const char *line_target; /* the library's; as it came only until exchange_on_line returns */
    size_t line_target_len;
    struct head_target target;
    struct head_framing framing;
    struct watch watch;
    struct buf body;
    struct err body_error;
    size_t dropped_bytes, drop_max; /* so much is read of a body that is not kept */
    int status;                     /* 0: no answer queued yet */
    bool handled, http11;
    bool refused;           /* body_error was there before the body */
    bool may_gzip, gzipped; /* the answer: is it compressed for those who ask; is it compressed */
    struct http_stream stream;
    struct buf piece; /* what `next` wrote and MHD has not taken yet */
    size_t piece_taken;
    bool stream_ended;
    struct timespec begin;
};

/* exchange_answer.c: sends the handler's answer, whose body or stream is taken over. */
enum MHD_Result exchange_send(struct http_exchange *x, struct http_response *resp);
