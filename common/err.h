/* Error codes and the sentence that goes with them.
 *
 * A function that can fail returns 0 or one of the negative codes below; when a person will read
 * the reason, its last argument is a `struct err *` (NULL is valid: the text is dropped). Code,
 * HTTP status and OpenAI error type come from the one list ERR_LIST, so that none can drift. */
#pragma once

/* clang-format off */
#define ERR_LIST(X)                                                                      \
    /*  name          code  http  openai error type          */                          \
    X(ERR_INVALID,     -1,  400, "invalid_request_error")  /* a field, flag or key is out of range */ \
    X(ERR_TOO_LARGE,   -2,  413, "invalid_request_error")  /* body or array above its ceiling */ \
    X(ERR_NOT_FOUND,   -3,  404, "invalid_request_error")  /* no such route, model or file */ \
    X(ERR_METHOD,      -4,  405, "invalid_request_error")                                \
    X(ERR_AUTH,        -5,  401, "authentication_error")                                 \
    X(ERR_UNSUPPORTED, -6,  400, "invalid_request_error")  /* known, but not implemented here */ \
    X(ERR_BUSY,        -7,  503, "overloaded_error")       /* the queue is full; retry later */ \
    X(ERR_CANCELLED,   -8,  499, "cancelled")              /* the client went away: seen in the log alone */ \
    X(ERR_NOMEM,       -9,  503, "overloaded_error")       /* memory is short; retry later */ \
    X(ERR_IO,         -10,  500, "server_error")                                         \
    X(ERR_CORRUPT,    -11,  500, "server_error")           /* a checkpoint or tokenizer file lies */ \
    X(ERR_NUMERIC,    -12,  500, "server_error")           /* non-finite logits */       \
    X(ERR_DEVICE,     -13,  503, "server_error")           /* the device failed */       \
    X(ERR_DRAINING,   -14,  503, "overloaded_error")       /* shutting down */           \
    X(ERR_INTERNAL,   -15,  500, "server_error")                                         \
    X(ERR_FORBIDDEN,  -16,  403, "permission_error")       /* a Host that is not this server's */ \
    X(ERR_MEDIA_TYPE, -17,  415, "invalid_request_error")  /* a body that is not said to be JSON */
/* clang-format on */

enum err_code {
#define X(name, code, http, type) name = code,
    ERR_LIST(X)
#undef X
};

struct err {
    int code;       /* 0, or an enum err_code */
    char param[96]; /* name of the offending field, flag or key; "" if there is none */
    char text[512]; /* one sentence naming field, limit and value; no newline */
};

/* Fills `err` (if not NULL) with the formatted text and an empty param; returns `code`.
 * Control characters in the result are replaced by '?', so the text is safe in a log line. */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The same, naming the field at fault. */
int err_field(struct err *err, int code, const char *param, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

int err_http_status(int code);         /* 500 for an unknown code */
const char *err_openai_type(int code); /* "server_error" for an unknown code */
const char *err_name(int code);        /* "ERR_INVALID"; "ERR_UNKNOWN" for an unknown code */
