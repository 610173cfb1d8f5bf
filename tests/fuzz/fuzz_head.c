/* Any bytes as the head of a request, cut into its parts at spaces, line feeds and colons without any judgement: what head.c lets through leaves no
 * doubt, and nothing is read beyond its end. */
#include "server/http/head.h"
#include "server/http/hosts.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define FIELDS_MAX (HEAD_FIELDS_MAX + 2)

/* The bytes before `stop`, or all, as a text of their own; *at and *len move behind. */
static char *take_text(const char **at, size_t *len, char stop)
{
    const char *end = *len ? memchr(*at, stop, *len) : NULL;
    size_t n = end ? (size_t)(end - *at) : *len;
    char *s = malloc(n + 1);
    if (!s)
        abort();
    if (n)
        memcpy(s, *at, n);
    s[n] = 0;
    *at += n + (end != NULL);
    *len -= n + (end != NULL);
    return s;
}

static size_t cut_fields(const char *at, size_t len, struct head_field *ret)
{
    size_t n = 0;
    while (len && n < FIELDS_MAX) {
        const char *end = memchr(at, '\n', len);
        size_t line = end ? (size_t)(end - at) : len;
        const char *colon = line ? memchr(at, ':', line) : NULL;
        size_t name = colon ? (size_t)(colon - at) : line, value = colon ? line - name - 1 : 0;
        ret[n++] = (struct head_field){at, colon ? colon + 1 : at + line, name, value};
        at += line + (end != NULL);
        len -= line + (end != NULL);
    }
    return n;
}

static bool is(const struct head_field *f, const char *name)
{
    return f->name_len == strlen(name) && !strncasecmp(f->name, name, f->name_len);
}

static void check_good(const struct head_field *f, size_t n, const struct head_framing *fr)
{
    int lengths = 0, codings = 0, hosts = 0;
    for (size_t i = 0; i < n; i++) {
        lengths += is(&f[i], "Content-Length");
        codings += is(&f[i], "Transfer-Encoding");
        hosts += is(&f[i], "Host");
        for (size_t j = 0; j < f[i].value_len; j++)
            if (f[i].value[j] == 0 || f[i].value[j] == '\r' || f[i].value[j] == '\n')
                abort();
    }
    if (lengths + codings > 1 || hosts > 1 || lengths != fr->has_length || codings != fr->chunked)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const char *at = (const char *)data;
    struct head_field fields[FIELDS_MAX];
    struct head_target target;
    struct head_framing fr;
    struct err err = {0};
    char *method = take_text(&at, &len, ' '), *uri = take_text(&at, &len, ' '), *version = take_text(&at, &len, '\n');
    size_t n = cut_fields(at, len, fields);
    if (head_check_target(uri, &target, &err) >= 0 && (target.path > strlen(uri) || strstr(uri, "%00")))
        abort();
    bool old = !strcmp(version, "HTTP/1.0");
    if (head_check_line(method, version, &err) >= 0 && head_check_fields(fields, n, !old, &fr, &err) >= 0) {
        check_good(fields, n, &fr);
        hosts_allow("a.example, b.example", fr.host);
    } else if (!err.text[0]) {
        abort();
    }
    free(method);
    free(uri);
    free(version);
    return 0;
}
