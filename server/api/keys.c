/* See keys.h. */
#include "server/api/keys.h"
#include "common/mapfile.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define KEY_MAX 512

struct key {
    char name[KEYS_NAME_MAX + 1];
    char key[KEY_MAX + 1];
};

struct key_list {
    struct key *items;
    int n, cap;
};

struct keys {
    const char *single, *path;
    struct log *log;
    pthread_rwlock_t lock; /* list */
    struct key_list list;
};

/* ---- the file ---- */

static int add(struct key_list *l, const char *name, size_t name_len, const char *key, size_t key_len)
{
    if (l->n == l->cap) {
        int cap = l->cap ? 2 * l->cap : 16;
        struct key *items = realloc(l->items, (size_t)cap * sizeof(*items));
        if (!items)
            return ERR_NOMEM;
        l->items = items;
        l->cap = cap;
    }
    struct key *k = &l->items[l->n++];
    memset(k, 0, sizeof(*k));
    memcpy(k->name, name, name_len);
    memcpy(k->key, key, key_len);
    return 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static bool printable(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (s[i] <= ' ' || s[i] > '~')
            return false;
    return len > 0;
}

static bool taken(const struct key_list *l, const struct key *k)
{
    for (int i = 0; i < l->n - 1; i++)
        if (!strcmp(l->items[i].key, k->key) || !strcmp(l->items[i].name, k->name))
            return true;
    return false;
}

static const char *const name_letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";

static int read_line(struct key_list *l, const char *s, size_t len, const char *path, int line, struct err *err)
{
    while (len && is_blank(s[len - 1]))
        len--;
    while (len && is_blank(*s))
        s++, len--;
    if (!len || *s == '#')
        return 0;
    size_t name = 0, key;
    while (name < len && !is_blank(s[name]))
        name++;
    for (key = name; key < len && is_blank(s[key]);)
        key++;
    char text[KEYS_NAME_MAX + 1] = "";
    if (name <= KEYS_NAME_MAX)
        memcpy(text, s, name);
    if (!*text || strspn(text, name_letters) != name || !printable(s + key, len - key) || len - key > KEY_MAX)
        return err_field(
            err, ERR_INVALID, "api-key-file",
            "--api-key-file %s, line %d: a line is NAME KEY, the name of at most %d letters, digits, '-', '_' and '.', the key of at "
            "most %d visible characters",
            path, line, KEYS_NAME_MAX, KEY_MAX);
    if (l->n == KEYS_MAX)
        return err_field(err, ERR_INVALID, "api-key-file", "--api-key-file %s has more than %d keys", path, KEYS_MAX);
    if (add(l, s, name, s + key, len - key) < 0)
        return err_set(err, ERR_NOMEM, "no memory for the keys of %s", path);
    if (taken(l, &l->items[l->n - 1]))
        return err_field(err, ERR_INVALID, "api-key-file", "--api-key-file %s, line %d: the name or the key was there before", path, line);
    return 0;
}

static int read_file(const char *path, struct key_list *l, struct err *err)
{
    struct mapfile m;
    int line = 0, r = mapfile_open(&m, path, err), before = l->n;
    for (size_t at = 0; r >= 0 && at < m.len;) {
        const char *s = (const char *)m.data + at, *end = memchr(s, '\n', m.len - at);
        size_t len = end ? (size_t)(end - s) : m.len - at;
        r = read_line(l, s, len, path, ++line, err);
        at += len + 1;
    }
    if (r >= 0 && l->n == before)
        r = err_field(err, ERR_INVALID, "api-key-file", "--api-key-file %s holds no key", path);
    mapfile_close(&m);
    return r;
}

static void warn_if_readable(const struct keys *k)
{
    struct stat st;
    if (k->path && !stat(k->path, &st) && (st.st_mode & S_IROTH))
        log_warn(k->log, "--api-key-file %s can be read by everybody on this machine", k->path);
}

/* ---- the keys ---- */

static void clear(struct key_list *l)
{
    for (int i = 0; i < l->n; i++)
        explicit_bzero(&l->items[i], sizeof(l->items[i]));
    free(l->items);
    *l = (struct key_list){0};
}

static int read_all(const struct keys *k, struct key_list *ret, struct err *err)
{
    struct key_list l = {0};
    int r = 0;
    if (k->single && strlen(k->single) > KEY_MAX)
        r = err_field(err, ERR_INVALID, "api-key", "--api-key is longer than %d bytes", KEY_MAX);
    else if (k->single && add(&l, "default", 7, k->single, strlen(k->single)) < 0)
        r = err_set(err, ERR_NOMEM, "no memory for the keys");
    if (r >= 0 && k->path)
        r = read_file(k->path, &l, err);
    if (r < 0)
        clear(&l);
    else
        *ret = l;
    return r;
}

int keys_open(const char *single, const char *path, struct log *log, struct keys **ret, struct err *err)
{
    struct keys *k = calloc(1, sizeof(*k));
    if (!k)
        return err_set(err, ERR_NOMEM, "no memory for the keys");
    *k = (struct keys){.single = single, .path = path, .log = log};
    pthread_rwlock_init(&k->lock, NULL);
    int r = read_all(k, &k->list, err);
    if (r < 0) {
        keys_close(k);
        return r;
    }
    warn_if_readable(k);
    *ret = k;
    return 0;
}

void keys_close(struct keys *k)
{
    if (!k)
        return;
    clear(&k->list);
    pthread_rwlock_destroy(&k->lock);
    free(k);
}

int keys_reload(struct keys *k, struct err *err)
{
    struct key_list l;
    int r = k->path ? read_all(k, &l, err) : 0;
    if (r < 0 || !k->path)
        return r;
    pthread_rwlock_wrlock(&k->lock);
    struct key_list old = k->list;
    k->list = l;
    pthread_rwlock_unlock(&k->lock);
    clear(&old);
    warn_if_readable(k);
    return 0;
}

bool keys_needed(const struct keys *k)
{
    return k && (k->single || k->path);
}

/* Every byte of the longest possible key is looked at, whatever is given and whichever key is compared. */
static bool same(const char *given, size_t n, const struct key *k)
{
    unsigned char diff = n != strlen(k->key);
    for (size_t i = 0; i < KEY_MAX; i++)
        diff |= (unsigned char)(k->key[i] ^ (i < n ? given[i] : 0));
    return !diff;
}

bool keys_find(struct keys *k, const char *given, char ret_name[KEYS_NAME_MAX + 1])
{
    size_t n = strlen(given);
    int found = -1;
    pthread_rwlock_rdlock(&k->lock);
    for (int i = 0; i < k->list.n; i++)
        if (same(given, n, &k->list.items[i]))
            found = i;
    if (found >= 0)
        memcpy(ret_name, k->list.items[found].name, KEYS_NAME_MAX + 1);
    pthread_rwlock_unlock(&k->lock);
    return found >= 0;
}
