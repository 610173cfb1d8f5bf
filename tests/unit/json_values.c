/* See json_values.h. */
#include "tests/unit/json_values.h"
#include "tests/check.h"

#define MANY 40
#define FEW 3

static const char *const values[] = {
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "2.0",
    "1.5",
    "-1e300",
    "9223372036854775807",
    "\"\"",
    "\"x\"",
    "\"<s>\"",
    "\"a\\u0000b\"",
    "[]",
    "[1]",
    "[\"x\"]",
    "[[]]",
    "{}",
    "{\"a\":1}",
    "{\"type\":\"text\"}",
    "{\"content\":\"x\"}",
    "{\"x\":\"x\"}",
};
#define N_VALUES (sizeof(values) / sizeof(values[0]))

struct visit {
    json_t *root;
    void (*with)(const json_t *root, const char *where, void *user);
    void *user;
};

static void visit(const struct visit *v, json_t *in);

static void show(const struct visit *v, const char *key, size_t i, const char *value)
{
    char where[128];
    snprintf(where, sizeof(where), "%.60s[%zu] = %s", key ? key : "", i, value);
    v->with(v->root, where, v->user);
}

static void change_member(const struct visit *v, json_t *in, const char *key)
{
    json_t *was = json_incref(json_object_get(in, key));
    for (size_t i = 0; i < N_VALUES; i++) {
        json_object_set_new(in, key, json_loads(values[i], JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL));
        show(v, key, 0, values[i]);
    }
    json_object_del(in, key);
    show(v, key, 0, "nothing");
    json_object_set(in, key, was);
    visit(v, was);
    json_decref(was);
}

static void change_element(const struct visit *v, json_t *in, size_t at)
{
    json_t *was = json_incref(json_array_get(in, at));
    for (size_t i = 0; i < N_VALUES; i++) {
        json_array_set_new(in, at, json_loads(values[i], JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL));
        show(v, NULL, at, values[i]);
    }
    json_array_set(in, at, was);
    visit(v, was);
    json_decref(was);
}

static void visit(const struct visit *v, json_t *in)
{
    size_t n = json_is_object(in) ? json_object_size(in) : json_array_size(in), most = n > MANY ? FEW : n;
    const char *keys[MANY], *key;
    json_t *member;
    size_t i = 0;
    json_object_foreach (in, key, member)
        if (i < most)
            keys[i++] = key;
    for (i = 0; i < most; i++)
        if (json_is_object(in)) {
            char copy[256];
            snprintf(copy, sizeof(copy), "%s", keys[i]);
            change_member(v, in, copy);
        } else {
            change_element(v, in, i);
        }
}

void json_values_each(json_t *root, void (*with)(const json_t *root, const char *where, void *user), void *user)
{
    const struct visit v = {root, with, user};
    visit(&v, root);
}
