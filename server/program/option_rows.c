/* Reads the rows of option_rows.h: first every source is reduced to text, one text a row; then one parser a type reads it. */
#include "server/program/option_rows.h"
#include "common/json.h"
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ROWS 96
#define MAX_FILE_BYTES (1 << 20)

struct source {
    const char *text; /* NULL: not given there */
    char origin[96];  /* "--port", "DTRNET_PORT", "port in the settings file" */
};

static const struct option_row *find_row(const struct option_table *t, unsigned command, const char *name, size_t len)
{
    for (size_t i = 0; i < t->n; i++)
        if ((t->rows[i].commands & command) && strlen(t->rows[i].name) == len && !memcmp(t->rows[i].name, name, len))
            return &t->rows[i];
    return NULL;
}

static void upper_name(char *out, size_t cap, const char *prefix, const char *name, bool upper)
{
    size_t n = 0;
    for (; *prefix && n + 1 < cap; prefix++)
        out[n++] = *prefix;
    for (; *name && n + 1 < cap; name++)
        out[n++] = *name == '-' ? '_' : upper ? (char)toupper((unsigned char)*name) : *name;
    out[n] = 0;
}

/* ---- sources ---- */

/* A flag that may be given several times makes one list. */
static int add_name(const struct option_row *row, const char *text, struct arena *arena, struct source *s, struct err *err)
{
    size_t before = s->text && row->type == OPTION_NAMES ? strlen(s->text) : 0, n = strlen(text);
    char *joined = before ? arena_alloc(arena, before + n + 2, 1) : NULL;
    if (before && !joined)
        return err_set(err, ERR_NOMEM, "no memory for --%s", row->name);
    if (before)
        snprintf(joined, before + n + 2, "%s,%s", s->text, text);
    s->text = before ? joined : text;
    return 0;
}

static int read_argv(const struct option_table *t, unsigned command, int argc, char **argv, struct arena *arena, struct source *src,
                     bool *help, struct err *err)
{
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (!strcmp(a, "-h") || !strcmp(a, "--help")) {
            *help = true;
            return 0;
        }
        if (strncmp(a, "--", 2))
            return err_field(err, ERR_INVALID, a, "unexpected argument \"%s\"; flags start with --", a);
        const char *eq = strchr(a, '=');
        size_t len = eq ? (size_t)(eq - a - 2) : strlen(a + 2);
        const struct option_row *row = find_row(t, command, a + 2, len);
        if (!row)
            return err_field(err, ERR_INVALID, a, "unknown flag %.*s; see --help", (int)len + 2, a);
        struct source *s = &src[row - t->rows];
        snprintf(s->origin, sizeof(s->origin), "--%s", row->name);
        const char *text = eq ? eq + 1 : row->type == OPTION_FLAG ? "on" : i + 1 < argc ? argv[++i] : NULL;
        if (!text)
            return err_field(err, ERR_INVALID, row->name, "--%s needs a value (%s)", row->name, row->arg ? row->arg : "on|off");
        int r = add_name(row, text, arena, s, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static void read_env(const struct option_table *t, unsigned command, struct source *src)
{
    for (size_t i = 0; i < t->n; i++) {
        char name[96];
        if (!t->env_prefix || src[i].text || !(t->rows[i].commands & command))
            continue;
        upper_name(name, sizeof(name), t->env_prefix, t->rows[i].name, true);
        src[i].text = getenv(name);
        if (src[i].text)
            memcpy(src[i].origin, name, sizeof(name));
    }
}

/* Variables that tests and scripts around the program know. */
static bool is_other_program(const char *name)
{
    static const char *const others[] = {"BENCH_", "BIN=", "EVAL_", "SHARED=", "TEST_"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (!strncmp(name, others[i], strlen(others[i])))
            return true;
    return false;
}

/* `set` is NAME=VALUE without the prefix. */
static bool is_row(const struct option_table *t, const char *set)
{
    for (size_t i = 0; i < t->n; i++) {
        char name[96];
        upper_name(name, sizeof(name), "", t->rows[i].name, true);
        if (!strncmp(set, name, strlen(name)) && set[strlen(name)] == '=')
            return true;
    }
    return false;
}

void option_rows_warn_unknown(const struct option_table *t, char *const *variables, struct log *log)
{
    size_t len = t->env_prefix ? strlen(t->env_prefix) : 0;
    for (; len && *variables; variables++) {
        const char *v = *variables;
        if (!strncmp(v, t->env_prefix, len) && !is_other_program(v + len) && !is_row(t, v + len))
            log_warn(log, "the variable %.*s is no setting and is ignored; see --help", (int)strcspn(v, "="), v);
    }
}

static const char *json_as_text(const json_t *v, struct arena *arena)
{
    char num[64];
    if (json_is_string(v))
        return arena_strndup(arena, json_string_value(v), json_string_length(v));
    if (json_is_boolean(v))
        return json_is_true(v) ? "on" : "off";
    if (json_is_integer(v)) {
        int n = snprintf(num, sizeof(num), "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        return arena_strndup(arena, num, (size_t)n);
    }
    char *dump = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT), *copy = dump ? arena_strndup(arena, dump, strlen(dump)) : NULL;
    free(dump);
    if (copy && json_is_array(v)) { /* a list is written without its brackets and quotes */
        char *to = copy;
        for (const char *from = copy; *from; from++)
            if (!strchr("[]\"", *from))
                *to++ = *from;
        *to = '\0';
    }
    return copy;
}

/* A key that belongs to another command is accepted and left alone, so that one file serves all of them. */
static int read_file_key(const struct option_table *t, unsigned command, const char *path, const char *key, const json_t *v,
                         struct arena *arena, struct source *src, struct err *err)
{
    for (size_t i = 0; i < t->n; i++) {
        char name[96];
        upper_name(name, sizeof(name), "", t->rows[i].name, false);
        if (strcmp(name, key) || (t->file_option && !strcmp(t->rows[i].name, t->file_option)))
            continue;
        if (!(t->rows[i].commands & command) || src[i].text || json_is_null(v))
            return 0;
        if ((json_is_object(v) && t->rows[i].type != OPTION_JSON) ||
            (json_is_array(v) && t->rows[i].type != OPTION_LIST && t->rows[i].type != OPTION_NAMES))
            return err_field(err, ERR_INVALID, key, "%s in %s must not be an %s", key, path, json_is_object(v) ? "object" : "array");
        snprintf(src[i].origin, sizeof(src[i].origin), "%.60s in the settings file", key);
        src[i].text = json_as_text(v, arena);
        return src[i].text ? 0 : err_set(err, ERR_NOMEM, "no memory for %s of %s", key, path);
    }
    return err_field(err, ERR_INVALID, key, "unknown key \"%s\" in %s", key, path);
}

static int read_file(const struct option_table *t, unsigned command, const char *path, struct arena *arena, struct source *src,
                     struct err *err)
{
    json_t *root = NULL;
    const char *key;
    json_t *v;
    int r = json_parse_file(path, MAX_FILE_BYTES, &root, err);
    if (r < 0)
        return r;
    if (!json_is_object(root))
        r = err_set(err, ERR_INVALID, "%s must hold one JSON object", path);
    else
        json_object_foreach (root, key, v)
            if (r >= 0)
                r = read_file_key(t, command, path, key, v, arena, src, err);
    json_decref(root);
    return r;
}

/* ---- values ---- */

static int parse_number(const struct option_row *row, const struct source *s, double *ret, struct err *err)
{
    char *end;
    errno = 0;
    double v = strtod(s->text, &end);
    bool whole = row->type != OPTION_DOUBLE;
    double unit = 1;
    if (row->type == OPTION_SIZE && end != s->text && *end) {
        static const char units[] = "kKmMgGtT";
        const char *u = strchr(units, *end);
        unit = u ? (double)((uint64_t)1 << (10 * ((u - units) / 2 + 1))) : 1;
        end += u != NULL;
        if (u && (!strcmp(end, "iB") || !strcmp(end, "B")))
            end = strchr(end, 0);
    }
    v *= unit;
    if (end == s->text || *end || !isfinite(v) || (whole && v != floor(v)))
        return err_field(err, ERR_INVALID, row->name, "%s: \"%s\" is not %s", s->origin, s->text,
                         row->type == OPTION_SIZE ? "a size in bytes (K, M or G may follow)"
                         : whole                  ? "a whole number"
                                                  : "a number");
    if (v < row->min || v > row->max)
        return err_field(err, ERR_INVALID, row->name, "%s: %s is outside %.15g to %.15g", s->origin, s->text, row->min, row->max);
    *ret = v;
    return 0;
}

static int parse_bool(const struct option_row *row, const struct source *s, bool *ret, struct err *err)
{
    static const char *const words[] = {"off", "on", "false", "true", "0", "1", "no", "yes"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (!strcasecmp(s->text, words[i])) {
            *ret = i & 1;
            return 0;
        }
    return err_field(err, ERR_INVALID, row->name, "%s: \"%s\" is neither on nor off", s->origin, s->text);
}

static bool is_choice(const char *choices, const char *text)
{
    size_t len = strlen(text);
    for (const char *p = choices; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
        if (strcspn(p, "|") == len && !memcmp(p, text, len))
            return true;
    return false;
}

static int store(const struct option_row *row, const struct source *s, void *dst, struct err *err)
{
    void *member = (char *)dst + row->offset;
    double v = 0;
    int r;
    switch (row->type) {
    case OPTION_INT:
    case OPTION_SIZE:
    case OPTION_DOUBLE:
        r = parse_number(row, s, &v, err);
        if (r < 0)
            return r;
        if (row->type == OPTION_INT)
            *(int *)member = (int)v;
        else if (row->type == OPTION_SIZE)
            *(size_t *)member = (size_t)v;
        else
            *(double *)member = v;
        return 0;
    case OPTION_ON_OFF:
    case OPTION_FLAG: return parse_bool(row, s, member, err);
    case OPTION_CHOICE:
        if (!is_choice(row->choices, s->text))
            return err_field(err, ERR_INVALID, row->name, "%s: \"%s\" is none of %s", s->origin, s->text, row->choices);
        break;
    case OPTION_STRING:
    case OPTION_LIST:
    case OPTION_NAMES:
    case OPTION_JSON:
        if (!*s->text)
            return err_field(err, ERR_INVALID, row->name, "%s: the value is empty", s->origin);
        break;
    }
    *(const char **)member = s->text;
    return 0;
}

int option_rows_parse(const struct option_table *t, unsigned command, int argc, char **argv, struct arena *arena, void *dst, bool *ret_help,
                      struct err *err)
{
    struct source src[MAX_ROWS] = {0};
    *ret_help = false;
    if (t->n > MAX_ROWS)
        return err_set(err, ERR_INTERNAL, "an option table has %zu rows, the limit is %d", t->n, MAX_ROWS);
    int r = read_argv(t, command, argc, argv, arena, src, ret_help, err);
    if (r < 0 || *ret_help)
        return r;
    read_env(t, command, src);
    const struct option_row *file = t->file_option ? find_row(t, command, t->file_option, strlen(t->file_option)) : NULL;
    if (file && src[file - t->rows].text)
        r = read_file(t, command, src[file - t->rows].text, arena, src, err);
    for (size_t i = 0; i < t->n && r >= 0; i++) {
        if (!(t->rows[i].commands & command))
            continue;
        if (!src[i].text)
            src[i].text = t->rows[i].initial;
        if (src[i].text)
            r = store(&t->rows[i], &src[i], dst, err);
    }
    return r;
}

/* ---- help ---- */

static int help_row(const struct option_row *row, struct buf *out)
{
    char head[96], limit[160] = "";
    const char *arg = row->choices ? row->choices : row->type == OPTION_ON_OFF ? "on|off" : row->type == OPTION_FLAG ? "" : row->arg;
    snprintf(head, sizeof(head), "--%s %s", row->name, arg);
    if (row->type == OPTION_INT || row->type == OPTION_DOUBLE)
        snprintf(limit, sizeof(limit), "%.15g to %.15g", row->min, row->max);
    if (row->initial && row->type != OPTION_FLAG)
        snprintf(limit + strlen(limit), sizeof(limit) - strlen(limit), "%sdefault %s", *limit ? "; " : "", row->initial);
    return buf_printf(out, "  %-35s %s%s%s%s\n", head, row->help, *limit ? " (" : "", limit, *limit ? ")" : "");
}

int option_rows_help(const struct option_table *t, unsigned command, struct buf *out)
{
    int r = 0;
    for (size_t i = 0; i < t->n && r >= 0; i++)
        if (t->rows[i].commands & command)
            r = help_row(&t->rows[i], out);
    return r;
}
