/* See head.h. */
#include "server/http/head.h"
#include <ctype.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

/* RFC 9110 5.6.2 */
static bool is_token_letter(unsigned char c)
{
    return isalnum(c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_token(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!is_token_letter((unsigned char)s[i]))
            return false;
    return len > 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static void trim(const char **s, size_t *len)
{
    while (*len && is_blank(**s))
        (*s)++, (*len)--;
    while (*len && is_blank((*s)[*len - 1]))
        (*len)--;
}

/* ---- hosts ---- */

/* Digits, or nothing behind the colon. */
static bool is_port(const char *s, size_t len)
{
    size_t n = 0;
    while (n < len && isdigit((unsigned char)s[n]))
        n++;
    return n == len && len <= 5;
}

static bool is_host_letter(unsigned char c, bool bracketed)
{
    return isalnum(c) || c == '.' || c == '-' || (bracketed ? c == ':' : c == '_');
}

/* "name", "name:port", "[address]:port": writes the name in lower case. False: it is none of these. */
static bool read_host(const char *s, size_t len, char ret[HEAD_HOST_MAX + 1])
{
    bool bracketed = len && *s == '[';
    const char *end = bracketed ? memchr(s, ']', len) : memchr(s, ':', len);
    size_t n = end ? (size_t)(end - s) + bracketed : len;
    if (n <= 2 * (size_t)bracketed || n > HEAD_HOST_MAX || (bracketed && !end))
        return false;
    for (size_t i = bracketed; i < n - bracketed; i++)
        if (!is_host_letter((unsigned char)s[i], bracketed))
            return false;
    if (n < len && (s[n] != ':' || !is_port(s + n + 1, len - n - 1)))
        return false;
    for (size_t i = 0; i < n; i++)
        ret[i] = (char)tolower((unsigned char)s[i]);
    ret[n] = 0;
    return true;
}

/* ---- the request line ---- */

static int check_path_letters(const char *target, struct err *err)
{
    for (const unsigned char *p = (const unsigned char *)target; *p; p++) {
        if (*p <= ' ' || *p > '~' || *p == '#' || *p == '\\')
            return err_set(err, ERR_INVALID, "the request target has the byte 0x%02x, which must be percent-encoded", *p);
        if (*p == '%' && !(isxdigit(p[1]) && isxdigit(p[2])))
            return err_set(err, ERR_INVALID, "the request target has a %% without two hexadecimal digits behind it");
        if (*p == '%' && p[1] == '0' && p[2] == '0')
            return err_set(err, ERR_INVALID, "the request target has a NUL (%%00)");
    }
    return 0;
}

int head_check_target(const char *target, struct head_target *ret, struct err *err)
{
    *ret = (struct head_target){0};
    int r = check_path_letters(target, err);
    if (r < 0 || *target == '/' || !strcmp(target, "*"))
        return r;
    size_t scheme = !strncasecmp(target, "http://", 7) ? 7 : !strncasecmp(target, "https://", 8) ? 8 : 0;
    size_t authority = strcspn(target + scheme, "/?");
    if (!scheme || !read_host(target + scheme, authority, ret->host))
        return err_set(err, ERR_INVALID, "the request target must be a path or an http URL, but is \"%.100s\"", target);
    ret->path = scheme + authority;
    ret->rootless = target[ret->path] != '/';
    return 0;
}

int head_check_line(const char *method, const char *version, struct err *err)
{
    if (!is_token(method, strlen(method)))
        return err_set(err, ERR_INVALID, "the request's method \"%.32s\" is not a token", method);
    if (strcmp(version, "HTTP/1.1") && strcmp(version, "HTTP/1.0"))
        return err_set(err, ERR_INVALID, "the request must say HTTP/1.1 or HTTP/1.0, but says \"%.32s\"", version);
    return 0;
}

/* ---- fields ---- */

static bool field_is(const struct head_field *f, const char *name)
{
    return f->name_len == strlen(name) && !strncasecmp(f->name, name, f->name_len);
}

static int check_letters(const struct head_field *f, struct err *err)
{
    if (f->name_len && is_blank(f->name[f->name_len - 1]))
        return err_set(err, ERR_INVALID, "there is white space before the colon of the header field \"%.*s\"",
                       (int)(f->name_len > 40 ? 40 : f->name_len), f->name);
    if (!is_token(f->name, f->name_len))
        return err_set(err, ERR_INVALID, "\"%.*s\" is not the name of a header field", (int)(f->name_len > 40 ? 40 : f->name_len), f->name);
    for (size_t i = 0; i < f->value_len; i++) {
        unsigned char c = (unsigned char)f->value[i];
        if ((c < ' ' && c != '\t') || c == 0x7f)
            return err_set(err, ERR_INVALID, "the header field %.*s has the control character 0x%02x",
                           (int)(f->name_len > 40 ? 40 : f->name_len), f->name, c);
    }
    return 0;
}

/* What must not come twice: the framing, and what decides about a request. */
static const char *const singles[] = {"Host",   "Content-Length", "Transfer-Encoding", "Content-Type", "Content-Encoding", "Authorization",
                                      "Expect", "Origin"};
#define N_SINGLES (sizeof(singles) / sizeof(singles[0]))

static int check_single(const struct head_field *f, bool seen[N_SINGLES], struct err *err)
{
    for (size_t i = 0; i < N_SINGLES; i++) {
        if (!field_is(f, singles[i]))
            continue;
        if (seen[i])
            return err_field(err, ERR_INVALID, singles[i], "the header field %s came twice", singles[i]);
        seen[i] = true;
    }
    return 0;
}

static int read_length(const char *s, size_t len, size_t *ret, struct err *err)
{
    size_t v = 0;
    for (size_t i = 0; i < len; i++) {
        if (s[i] < '0' || s[i] > '9')
            len = 0;
        else
            v = v > (SIZE_MAX - 9) / 10 ? SIZE_MAX - 9 : 10 * v + (size_t)(s[i] - '0');
    }
    *ret = v;
    return len ? 0 : err_field(err, ERR_INVALID, "Content-Length", "Content-Length must be a number of digits alone");
}

static int read_field(const struct head_field *f, struct head_framing *fr, struct err *err)
{
    const char *s = f->value;
    size_t len = f->value_len;
    trim(&s, &len);
    if (field_is(f, "Content-Length")) {
        fr->has_length = true;
        return read_length(s, len, &fr->length, err);
    }
    if (field_is(f, "Transfer-Encoding")) {
        fr->chunked = len == 7 && !strncasecmp(s, "chunked", 7);
        return fr->chunked ? 0
                           : err_field(err, ERR_INVALID, "Transfer-Encoding", "Transfer-Encoding must be chunked, but is \"%.*s\"",
                                       (int)(len > 40 ? 40 : len), s);
    }
    if (field_is(f, "Host") && !read_host(s, len, fr->host))
        return err_field(err, ERR_INVALID, "Host", "Host must be a name or an address, with or without a port, but is \"%.*s\"",
                         (int)(len > 100 ? 100 : len), s);
    return 0;
}

static int check_together(const struct head_framing *fr, bool http11, struct err *err)
{
    if (fr->chunked && fr->has_length)
        return err_field(err, ERR_INVALID, "Transfer-Encoding", "a request has Content-Length or Transfer-Encoding, not both");
    if (fr->chunked && !http11)
        return err_field(err, ERR_INVALID, "Transfer-Encoding", "HTTP/1.0 knows no Transfer-Encoding");
    if (http11 && !*fr->host)
        return err_field(err, ERR_INVALID, "Host", "the header field Host is missing");
    return 0;
}

int head_check_fields(const struct head_field *fields, size_t n, bool http11, struct head_framing *ret, struct err *err)
{
    bool seen[N_SINGLES] = {false};
    *ret = (struct head_framing){0};
    if (n > HEAD_FIELDS_MAX)
        return err_set(err, ERR_INVALID, "the request has more than %d header fields", HEAD_FIELDS_MAX);
    for (size_t i = 0; i < n; i++) {
        int r = check_letters(&fields[i], err);
        if (r >= 0)
            r = check_single(&fields[i], seen, err);
        if (r >= 0)
            r = read_field(&fields[i], ret, err);
        if (r < 0)
            return r;
    }
    return check_together(ret, http11, err);
}
