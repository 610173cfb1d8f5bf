/* Error codes: their names, HTTP statuses and OpenAI types, and the filling of a struct err. */
#include "common/err.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void fill(struct err *err, int code, const char *param, const char *fmt, va_list ap)
{
    err->code = code;
    snprintf(err->param, sizeof(err->param), "%s", param);
    if (vsnprintf(err->text, sizeof(err->text), fmt, ap) < 0)
        snprintf(err->text, sizeof(err->text), "%s", err_name(code));
    for (char *s = err->text; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
    for (char *s = err->param; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
}

int err_set(struct err *err, int code, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        fill(err, code, "", fmt, ap);
        va_end(ap);
    }
    return code;
}

int err_field(struct err *err, int code, const char *param, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        fill(err, code, param, fmt, ap);
        va_end(ap);
    }
    return code;
}

int err_http_status(int code)
{
    switch (code) {
#define X(name, value, http, type) \
    case value: return http;
        ERR_LIST(X)
#undef X
    }
    return 500;
}

const char *err_openai_type(int code)
{
    switch (code) {
#define X(name, value, http, type) \
    case value: return type;
        ERR_LIST(X)
#undef X
    }
    return "server_error";
}

const char *err_name(int code)
{
    switch (code) {
#define X(name, value, http, type) \
    case value: return #name;
        ERR_LIST(X)
#undef X
    }
    return "ERR_UNKNOWN";
}
