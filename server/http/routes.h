/* (method, path) -> handler, and what every request goes through before and after it: the key, the body's JSON, errors in OpenAI's
 * shape, the log line and the counters. */
#pragma once
#include "server/api/api.h"
#include "server/http/http.h"

typedef int (*route_handler)(struct call *c, struct err *err);

struct route {
    const char *method, *path; /* a path that ends in '/', but for "/" itself, stands for everything below it */
    route_handler handler;
    bool open;              /* no key needed */
    bool quiet;             /* logged at debug level: probes */
    bool has_body;          /* a JSON object */
    bool queued;            /* runs in the engine: refused before its body while the queue is full */
    bool early;             /* answered while the model is being loaded, too */
    const char *const *ids; /* members of the body that may hold lists of ids (common/json_ids.h); NULL: none */
};

const struct route *routes_table(int *ret_n);

/* http_options.admit, .handle and .finished; `user` is the struct server. */
int routes_admit(void *user, struct http_request *req, struct err *err);
void routes_handle(void *user, struct http_request *req, const struct err *body_error, struct http_response *resp);
void routes_finished(void *user, const struct http_request *req, int status, double seconds, bool sent);
