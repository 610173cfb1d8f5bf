/* See head_shown.h. Up to 0.9.77 the library cuts lines at CR LF and at LF alone, ends values at a NUL, puts a continued line (obs-fold)
 * behind the name of the field it continues, and skips blanks between the parts of the request line: all of these move what follows, or leave
 * a byte where there should be a NUL. From 1.0 on it refuses them itself, and its buffer is not looked at.
 *
 * Each part is looked for behind the one before it, by its address, before a byte between them is read: were a library's buffer laid out in
 * another way, requests would be refused and nothing outside the buffer be read. */
#include "server/http/head_shown.h"
#include "server/http/library_version.h"
#include <stdint.h>
#include <string.h>

struct fields {
    struct head_field items[HEAD_FIELDS_MAX + 1];
    size_t n;
};

static enum MHD_Result take_field(void *user, enum MHD_ValueKind kind, const char *name, size_t name_len, const char *value,
                                  size_t value_len)
{
    struct fields *f = user;
    (void)kind;
    f->items[f->n++] = (struct head_field){name, value ? value : "", name_len, value ? value_len : 0};
    return f->n <= HEAD_FIELDS_MAX ? MHD_YES : MHD_NO;
}

/* Do n NULs, and nothing else, lie between `at` and `next`? */
static bool ends_line(const char *at, const char *next, size_t n)
{
    return at + n == next && !memcmp(at, "\0\0", n);
}

static bool line_lies_well(const char *method, const char *target, size_t target_len, const char *version)
{
    return ends_line(method + strlen(method), target, 1) && ends_line(target + target_len, version, 1);
}

/* From the name to its value there are a NUL and blanks. */
static bool field_lies_well(const struct head_field *f)
{
    const char *p = f->name + f->name_len;
    if ((uintptr_t)f->value <= (uintptr_t)p || *p)
        return false;
    for (p++; p < f->value; p++)
        if (*p != ' ' && *p != '\t')
            return false;
    return true;
}

/* Behind the last field there are its own end and the empty line, four bytes in all; they lie in the library's buffer, which goes on. */
static bool lies_well(const struct fields *f, const char *version)
{
    const char *end = version + strlen(version);
    for (size_t i = 0; i < f->n; i++) {
        if (!ends_line(end, f->items[i].name, 2) || !field_lies_well(&f->items[i]))
            return false;
        end = f->items[i].value + f->items[i].value_len;
    }
    return !memcmp(end, "\0\0\0\0", 4);
}

int head_shown_check(struct MHD_Connection *mhd, const char *method, const char *target, size_t target_len, const char *version,
                     struct head_framing *ret, struct err *err)
{
    struct fields f = {.n = 0};
    MHD_get_connection_values_n(mhd, MHD_HEADER_KIND, take_field, &f);
    bool forgives = library_version_forgives();
    if (forgives && !line_lies_well(method, target, target_len, version))
        return err_set(err, ERR_INVALID, "the request line must be a method, a target and a version with one space between, without a NUL");
    int r = head_check_line(method, version, err);
    if (r >= 0)
        r = head_check_fields(f.items, f.n, !strcmp(version, "HTTP/1.1"), ret, err);
    if (r >= 0 && forgives && !lies_well(&f, version))
        r = err_set(err, ERR_INVALID, "the header has a NUL, a continued line, or a line that does not end with CR LF");
    return r;
}
