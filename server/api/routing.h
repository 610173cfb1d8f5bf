/* The answer of POST /v1/routing: what each token does in each layer, why, and what that saves. */
#pragma once
#include "server/api/api.h"

#define ROUTING_TOP 5 /* alternatives beside a token unless asked otherwise */

/* A text in the engine. Everything lies in the call's arena but for the ticket. */
struct routing_job {
    struct call *call;
    int32_t *tokens; /* [n], with one free place before them for BOS */
    size_t n;
    bool add_bos, probabilities;
    int top_logprobs;
    struct eval_request req; /* all tokens are scored but the first, and what comes after the last is asked for */
    struct engine_ticket *ticket;
    struct api_usage usage;
};

/* Where the writing of an answer stands. */
struct routing_cursor {
    int part;  /* of the list in routing_write.c */
    int layer; /* of the lists of layers */
    size_t at; /* in the list under way */
};
/* Appends some more of the answer of a job whose ticket is done. True at its end. */
bool routing_write_some(struct routing_job *j, struct writer *w, struct routing_cursor *c);
