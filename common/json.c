/* Typed readers over jansson, and writers for responses. */
#include "common/json.h"
#include "common/float_text.h"
#include "common/readfile.h"
#include "common/utf8.h"
#include <assert.h>
#include <malloc.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 64

/* ---- parsing ---- */

#define MAX_INTEGER "9223372036854775807" /* more does not fit an int64 */

/* What a first look at the text finds; jansson, which recurses and refuses long integers, comes after it. */
struct outline {
    bool too_deep;
    size_t long_integers; /* that become reals: "1000...0" in model_max_length stands in half of all tokenizer configs */
    size_t objects, arrays, members, elements, strings, string_bytes, longest, numbers;
};

/* Length of the number at s; *ret_long: an integer of more digits than fit. */
static size_t number_length(const char *s, size_t len, bool *ret_long)
{
    size_t n = 0, digits = 0;
    bool integer = true;
    for (; n < len && strchr("0123456789+-.eE", s[n]) && s[n]; n++) {
        digits += s[n] >= '0' && s[n] <= '9';
        integer &= (s[n] >= '0' && s[n] <= '9') || s[n] == '-';
    }
    size_t most = strlen(MAX_INTEGER);
    *ret_long = integer && (digits > most || (digits == most && memcmp(s + n - digits, MAX_INTEGER, most) > 0));
    return n;
}

/* Length of the string at s, its quotes included, or up to the end of the text. */
static size_t string_length(const char *s, size_t len)
{
    size_t n = 1;
    while (n < len && s[n] != '"')
        n += s[n] == '\\' ? 2 : 1;
    return n < len ? n + 1 : len;
}

static void count_string(struct outline *o, size_t n)
{
    o->strings++;
    o->string_bytes += n;
    o->longest = n > o->longest ? n : o->longest;
}

static void count_mark(struct outline *o, char c, int *depth)
{
    o->objects += c == '{';
    o->arrays += c == '[';
    o->members += c == ':';
    o->elements += c == ',' || c == '[';
    if (c == '{' || c == '[')
        o->too_deep |= ++*depth > MAX_DEPTH;
    else if (c == '}' || c == ']')
        --*depth;
}

/* Walks the text; `out` (may be NULL) receives a copy in which long integers end in ".0". */
static int outline(const char *text, size_t len, struct buf *out, struct outline *ret)
{
    int depth = 0, r = 0;
    *ret = (struct outline){0};
    for (size_t i = 0, n; i < len && r >= 0; i += n) {
        char c = text[i];
        bool is_long = false;
        n = 1;
        if (c == '"') {
            n = string_length(text + i, len - i);
            count_string(ret, n);
        } else if (c == '-' || (c >= '0' && c <= '9')) {
            n = number_length(text + i, len - i, &is_long);
            ret->numbers++;
        } else {
            count_mark(ret, c, &depth);
        }
        ret->long_integers += is_long;
        if (out)
            r = buf_append(out, text + i, n);
        if (out && r >= 0 && is_long)
            r = buf_puts(out, ".0");
    }
    return r;
}

/* What jansson 2.14 allocates on 64 bits, malloc's own bytes included: an object and its first buckets; a member and its share of buckets
 * and keys; an array and its first places; an element's places, the ones before they grew included; a string's head; a number. */
size_t json_estimate(const char *text, size_t len)
{
    struct outline o;
    outline(text, len, NULL, &o);
    return 224 * o.objects + 112 * o.members + 128 * o.arrays + 24 * o.elements + 80 * o.strings + o.string_bytes + 3 * o.longest +
           32 * o.numbers + (o.long_integers ? len + 2 * o.long_integers : 0) + 4096;
}

/* jansson goes on when some of its allocations fail, and says nothing of others; so they are counted here. */
static _Thread_local bool out_of_memory;
static _Thread_local size_t allocated;

static void *allocate(size_t n)
{
    void *p = malloc(n);
    out_of_memory |= !p;
    allocated += p ? malloc_usable_size(p) + sizeof(size_t) : 0;
    return p;
}

static void release(void *p)
{
    allocated -= p ? malloc_usable_size(p) + sizeof(size_t) : 0;
    free(p);
}

static void count_allocations(void)
{
    json_set_alloc_funcs(allocate, release);
}

/* ERR_INVALID leaves *e to be told; *ret is set on success alone. */
static int decode(const char *text, size_t len, size_t flags, json_t **ret, json_error_t *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, count_allocations);
    out_of_memory = false;
    allocated = 0;
    json_t *value = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | flags, e);
    if (value && !out_of_memory) {
        *ret = value;
        return 0;
    }
    json_decref(value);
    return out_of_memory ? ERR_NOMEM : ERR_INVALID;
}

static int parse(const char *text, size_t len, size_t flags, const char *what, json_t **ret, struct err *err)
{
    json_error_t e;
    struct outline o;
    struct buf copy;
    int r;
    outline(text, len, NULL, &o);
    if (o.too_deep)
        return err_set(err, ERR_INVALID, "%s: JSON is nested deeper than %d", what, MAX_DEPTH);
    if (o.long_integers == 0) {
        r = decode(text, len, flags, ret, &e);
    } else {
        buf_init(&copy, SIZE_MAX / 4);
        r = outline(text, len, &copy, &o) < 0 ? ERR_NOMEM : decode(copy.data, copy.len, flags, ret, &e);
        buf_done(&copy);
    }
    if (r == ERR_NOMEM)
        return err_set(err, r, "no memory to parse %s", what);
    return r < 0 ? err_set(err, r, "%s is not valid JSON: %s at line %d, column %d", what, e.text, e.line, e.column) : 0;
}

int json_parse(const char *text, size_t len, const char *what, json_t **ret, struct err *err)
{
    return parse(text, len, 0, what, ret, err);
}

int json_parse_with_nul(const char *text, size_t len, const char *what, json_t **ret, struct err *err)
{
    return parse(text, len, JSON_ALLOW_NUL, what, ret, err);
}

size_t json_parsed_bytes(void)
{
    return allocated;
}

int json_parse_file(const char *path, size_t max_bytes, json_t **ret, struct err *err)
{
    struct buf b;
    buf_init(&b, max_bytes);
    int r = readfile(path, &b, err);
    if (r >= 0)
        r = json_parse(b.data, b.len, path, ret, err);
    buf_done(&b);
    return r;
}

/* ---- readers ---- */

const char *json_type_name(const json_t *v)
{
    if (!v)
        return "missing";
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number with a fraction";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    case JSON_NULL: return "null";
    }
    return "of an unknown type";
}

/* NULL when the member is absent or null. */
static const json_t *member(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    return v && !json_is_null(v) ? v : NULL;
}

struct field_name {
    char s[96];
};

static struct field_name name_of(const char *where, const char *key)
{
    struct field_name f;
    snprintf(f.s, sizeof(f.s), "%s%s", where, key);
    return f;
}

static int wrong_type(const char *name, const char *wanted, const json_t *v, struct err *err)
{
    return err_field(err, ERR_INVALID, name, "%s must be %s, but is %s", name, wanted, json_type_name(v));
}

/* An integer, or a number without a fraction as some clients write integers ("16.0"). */
static int read_int(const json_t *v, const char *name, int64_t min, int64_t max, int64_t *ret, struct err *err)
{
    int64_t i;
    double d = json_real_value(v);
    if (json_is_integer(v))
        i = json_integer_value(v);
    else if (!json_is_real(v) || d != rint(d))
        return wrong_type(name, "an integer", v, err);
    else if (fabs(d) < 0x1p62)
        i = (int64_t)d;
    else
        return err_field(err, ERR_INVALID, name, "%s must be between %lld and %lld, but is %g", name, (long long)min, (long long)max, d);
    if (i < min || i > max)
        return err_field(err, ERR_INVALID, name, "%s must be between %lld and %lld, but is %lld", name, (long long)min, (long long)max,
                         (long long)i);
    *ret = i;
    return 0;
}

int json_get_int(const json_t *obj, const char *where, const char *key, int64_t min, int64_t max, int64_t *ret, struct err *err)
{
    const json_t *v = member(obj, key);
    return v ? read_int(v, name_of(where, key).s, min, max, ret, err) : 0;
}

int json_get_double(const json_t *obj, const char *where, const char *key, double min, double max, double *ret, struct err *err)
{
    const json_t *v = member(obj, key);
    if (!v)
        return 0;
    struct field_name name = name_of(where, key);
    if (!json_is_number(v))
        return wrong_type(name.s, "a number", v, err);
    double d = json_number_value(v);
    if (!isfinite(d) || d < min || d > max)
        return err_field(err, ERR_INVALID, name.s, "%s must be between %g and %g, but is %g", name.s, min, max, d);
    *ret = d;
    return 0;
}

int json_get_bool(const json_t *obj, const char *where, const char *key, bool *ret, struct err *err)
{
    const json_t *v = member(obj, key);
    if (v && !json_is_boolean(v))
        return wrong_type(name_of(where, key).s, "true or false", v, err);
    if (v)
        *ret = json_is_true(v);
    return 0;
}

int json_get_string(const json_t *obj, const char *where, const char *key, const char **ret, size_t *ret_len, struct err *err)
{
    const json_t *v = member(obj, key);
    if (v && !json_is_string(v))
        return wrong_type(name_of(where, key).s, "a string", v, err);
    if (v && !ret_len && strlen(json_string_value(v)) != json_string_length(v))
        return err_field(err, ERR_INVALID, name_of(where, key).s, "%s must not hold U+0000", name_of(where, key).s);
    if (v) {
        *ret = json_string_value(v);
        if (ret_len)
            *ret_len = json_string_length(v);
    }
    return 0;
}

int json_get_ids(const json_t *obj, const char *where, const char *key, int64_t min, int64_t max, size_t max_n, int32_t **ret,
                 size_t *ret_n, struct err *err)
{
    const json_t *v = member(obj, key);
    if (!v) {
        *ret = NULL;
        *ret_n = 0;
        return 0;
    }
    struct field_name name = name_of(where, key);
    if (!json_is_array(v))
        return wrong_type(name.s, "an array of integers", v, err);
    size_t n = json_array_size(v);
    if (n > max_n)
        return err_field(err, ERR_INVALID, name.s, "%s has %zu entries; the limit is %zu", name.s, n, max_n);
    int32_t *ids = malloc((n ? n : 1) * sizeof(*ids));
    if (!ids)
        return err_field(err, ERR_NOMEM, name.s, "no memory for %zu entries of %s", n, name.s);
    for (size_t i = 0; i < n; i++) {
        char at[128];
        int64_t id = 0;
        snprintf(at, sizeof(at), "%s[%zu]", name.s, i);
        int r = read_int(json_array_get(v, i), at, min, max, &id, err);
        if (r < 0) {
            free(ids);
            return r;
        }
        ids[i] = (int32_t)id;
    }
    *ret = ids;
    *ret_n = n;
    return 0;
}

/* ---- writers ---- */

int json_format_float(char *out, float v)
{
    struct float_text t;
    assert(isfinite(v));
    float_text_from_float(&t, v);
    return float_text_write(out, &t, signbit(v));
}

int json_format_double(char *out, double v)
{
    struct float_text t;
    assert(isfinite(v));
    float_text_from_double(&t, v);
    return float_text_write(out, &t, signbit(v));
}

int json_put_float(struct buf *b, float v)
{
    char text[32];
    return isfinite(v) ? buf_append(b, text, (size_t)json_format_float(text, v)) : buf_puts(b, "null");
}

int json_put_double(struct buf *b, double v)
{
    char text[32];
    return isfinite(v) ? buf_append(b, text, (size_t)json_format_double(text, v)) : buf_puts(b, "null");
}

static bool is_plain(char c)
{
    return (unsigned char)c >= 0x20 && (unsigned char)c < 0x7f && c != '"' && c != '\\';
}

/* Appends what stands for the character (or bad bytes) at s; *ret_used is how many bytes of s that was. */
static int put_escaped(struct buf *b, const char *s, size_t len, size_t *ret_used)
{
    static const char shorts[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    const char *p = *s ? strchr(shorts, *s) : NULL;
    *ret_used = 1;
    if (p)
        return buf_append(b, (char[]){'\\', letters[p - shorts]}, 2);
    if ((unsigned char)*s < 0x20 || *s == 0x7f)
        return buf_printf(b, "\\u%04x", (unsigned)(unsigned char)*s);
    size_t n = utf8_decode(s, len, NULL);
    *ret_used = n ? n : utf8_bad_length(s, len, NULL);
    return n ? buf_append(b, s, n) : buf_append(b, "\xef\xbf\xbd", 3);
}

int json_put_string(struct buf *b, const char *s, size_t len)
{
    size_t start = b->len, used;
    int r = buf_append(b, "\"", 1);
    for (size_t i = 0; i < len && r >= 0; i += used) {
        for (used = 0; i + used < len && is_plain(s[i + used]);)
            used++;
        r = used ? buf_append(b, s + i, used) : put_escaped(b, s + i, len - i, &used);
    }
    if (r >= 0)
        r = buf_append(b, "\"", 1);
    if (r < 0 && b->len > start) { /* as buf_append: unchanged on error */
        b->len = start;
        b->data[start] = 0;
    }
    return r;
}
