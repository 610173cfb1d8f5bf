/* See json_ids.h. */
#include "common/json_ids.h"
#include "common/err.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARK INT64_C(-9223372036854775807) /* the number of list 0; list i has MARK + i */
#define MARK_HEAD "-92233720"              /* begins every such number; a text that has it somewhere is left as it is */
#define MARK_MAX 32                        /* bytes of a list in its place, at most */
#define MAX_DIGITS 9

static size_t count(const char *text, size_t len, char c)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += text[i] == c;
    return n;
}

static size_t most_lists(const char *text, size_t len)
{
    size_t n = count(text, len, '[');
    return n < len / (2 * JSON_IDS_LEAST + 1) ? n : len / (2 * JSON_IDS_LEAST + 1);
}

static size_t most_ids(const char *text, size_t len)
{
    return count(text, len, ',') + most_lists(text, len);
}

size_t json_ids_estimate(const char *text, size_t len)
{
    size_t lists = most_lists(text, len);
    return 2 * (len + MARK_MAX * lists) + sizeof(int32_t) * most_ids(text, len) + sizeof(size_t) * lists + 64;
}

static size_t skip_space(const char *s, size_t i, size_t len)
{
    while (i < len && (s[i] == ' ' || s[i] == '\n' || s[i] == '\t' || s[i] == '\r'))
        i++;
    return i;
}

/* The integer at s[i]; returns where it ends, or 0 if it is none as JSON writes them, or has too many digits. */
static size_t read_id(const char *s, size_t i, size_t len, int32_t *ret)
{
    size_t begin = i;
    uint32_t v = 0;
    for (; i < len && s[i] >= '0' && s[i] <= '9' && i - begin < MAX_DIGITS; i++)
        v = 10 * v + (uint32_t)(s[i] - '0');
    *ret = (int32_t)v;
    return i == begin || (s[begin] == '0' && i > begin + 1) ? 0 : i;
}

/* The list that begins at s[i]; returns where it ends, or 0 if it is no list of ids. */
static size_t read_list(const char *s, size_t i, size_t len, int32_t *ids, size_t *ret_n)
{
    size_t n = 0;
    do {
        i = read_id(s, skip_space(s, i + 1, len), len, &ids[n++]);
        i = i ? skip_space(s, i, len) : len;
    } while (i < len && s[i] == ',');
    *ret_n = n;
    return i < len && s[i] == ']' && n >= JSON_IDS_LEAST ? i + 1 : 0;
}

/* Where the string that begins at s[i] ends. */
static size_t skip_string(const char *s, size_t i, size_t len)
{
    for (i++; i < len && s[i] != '"'; i++)
        i += s[i] == '\\';
    return i < len ? i + 1 : len;
}

static bool is_named(const char *s, size_t len, const char *const *names)
{
    for (; *names; names++)
        if (strlen(*names) == len && !memcmp(*names, s, len))
            return true;
    return false;
}

struct taking {
    const char *text;
    size_t len, copied; /* of the text, into `rest` */
    size_t n_ids;
    struct buf *rest;
    struct json_ids *taken;
};

static int begin_taking(struct taking *t)
{
    size_t ids = most_ids(t->text, t->len), lists = most_lists(t->text, t->len);
    t->taken->ids = malloc((ids + 1) * sizeof(int32_t));
    t->taken->ends = malloc((lists + 1) * sizeof(size_t));
    return t->taken->ids && t->taken->ends ? 0 : ERR_NOMEM;
}

/* The list text[begin .. end) holds the n ids behind those that were taken. */
static int take_list(struct taking *t, size_t begin, size_t end, size_t n)
{
    char mark[MARK_MAX];
    int m = snprintf(mark, sizeof(mark), "[%lld]", (long long)(MARK + (int64_t)t->taken->n_lists));
    int r = buf_append(t->rest, t->text + t->copied, begin - t->copied);
    if (r >= 0)
        r = buf_append(t->rest, mark, (size_t)m);
    t->copied = end;
    t->n_ids += n;
    t->taken->ends[t->taken->n_lists++] = t->n_ids;
    return r;
}

/* What stands at text[i], inside a member that may hold lists of ids or not; moves i behind it. */
static int step(struct taking *t, const char *const *names, size_t *i, bool *named)
{
    const char *s = t->text;
    size_t begin = *i, end, n;
    if (s[begin] == '"') {
        *i = skip_string(s, begin, t->len);
        end = skip_space(s, *i, t->len);
        if (end < t->len && s[end] == ':')
            *named = is_named(s + begin + 1, *i - begin - 2, names);
        return 0;
    }
    *i = begin + 1;
    if (s[begin] != '[' || !*named)
        return 0;
    if (!t->taken->ids && begin_taking(t) < 0)
        return ERR_NOMEM;
    end = read_list(s, begin, t->len, t->taken->ids + t->n_ids, &n);
    if (!end)
        return 0;
    *i = end;
    return take_list(t, begin, end, n);
}

int json_ids_take(const char *text, size_t len, const char *const *names, struct buf *rest, struct json_ids *ret)
{
    struct taking t = {.text = text, .len = len, .rest = rest, .taken = ret};
    bool named = false;
    int r = 0;
    *ret = (struct json_ids){0};
    if (memmem(text, len, MARK_HEAD, strlen(MARK_HEAD)))
        return 0;
    for (size_t i = 0; i < len && r >= 0;)
        r = step(&t, names, &i, &named);
    if (r >= 0 && ret->n_lists)
        r = buf_append(rest, text + t.copied, len - t.copied);
    if (r < 0 || !ret->n_lists)
        json_ids_done(ret);
    return r;
}

void json_ids_done(struct json_ids *taken)
{
    free(taken->ids);
    free(taken->ends);
    *taken = (struct json_ids){0};
}

const int32_t *json_ids_find(const struct json_ids *taken, const json_t *list, size_t *ret_n)
{
    const json_t *mark = json_array_size(list) == 1 && taken->n_lists ? json_array_get(list, 0) : NULL;
    if (!json_is_integer(mark) || json_integer_value(mark) >= MARK + (json_int_t)taken->n_lists)
        return NULL;
    size_t i = (size_t)(json_integer_value(mark) - MARK), begin = i ? taken->ends[i - 1] : 0;
    *ret_n = taken->ends[i] - begin;
    return taken->ids + begin;
}
