/* Lists of ids taken out of a text: which are, what is left in their place, and that nothing a client writes is taken for one of them. */
#include "common/err.h"
#include "common/json_ids.h"
#include "tests/check.h"
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"prompt", "texts", NULL};

/* What the taken lists hold, as "1 2 3;4 5 6 7". */
static void spell(const struct json_ids *taken, char *out, size_t size)
{
    size_t at = 0;
    *out = 0;
    for (size_t l = 0, i = 0; l < taken->n_lists; l++)
        for (; i < taken->ends[l]; i++)
            at += (size_t)snprintf(out + at, size - at, "%s%d", i == 0 ? "" : l && i == taken->ends[l - 1] ? ";" : " ", taken->ids[i]);
}

static void test_which_are_taken(void)
{
    static const struct {
        const char *text, *lists;
    } rows[] = {
        {"{\"prompt\":[1,2,3,4]}", "1 2 3 4"},
        {"{\"prompt\":[1,2,3]}", ""},
        {"{\"other\":[1,2,3,4]}", ""},
        {"{\"other\":[1,2,3,4],\"prompt\":[5,6,7,8],\"stop\":[9,9,9,9]}", "5 6 7 8"},
        {"{\"prompt\":[[1,2,3,4],[5],[6,7,8,999999999]]}", "1 2 3 4;6 7 8 999999999"},
        {"{ \"prompt\" :\n[ [ 1 , 2\t, 3 ,4 ] ,[0,0,0,0]] }", "1 2 3 4;0 0 0 0"},
        {"{\"a\":{\"texts\":[1,2,3,4]}}", "1 2 3 4"},
        {"{\"prompt\":[1,2,3,1000000000]}", ""},
        {"{\"prompt\":[1,2,3,04]}", ""},
        {"{\"prompt\":[1,2,3,-4]}", ""},
        {"{\"prompt\":[1,2,3,4.0]}", ""},
        {"{\"prompt\":[1,2,3,4e0]}", ""},
        {"{\"prompt\":[1,2,3,\"4\"]}", ""},
        {"{\"prompt\":[1,2,3,4,]}", ""},
        {"{\"prompt\":[,1,2,3,4]}", ""},
        {"{\"prompt\":[1 2,3,4,5]}", ""},
        {"{\"prompt\":[1,2,3,4", ""},
        {"{\"prompt\":[1,2,3,[4,5,6,7]]}", "4 5 6 7"},
        {"{\"x\":\"\\\"prompt\\\":[1,2,3,4]\"}", ""},
        {"{\"prompt\":\"[1,2,3,4]\"}", ""},
        {"{\"prompt\":[1,2,3,4],\"seed\":-9223372036854775807}", ""},
        {"{\"prompt\":[[1,2,3,4],[-9223372036854775807]]}", ""},
        {"", ""},
        {"\"", ""},
        {"\"\\", ""},
        {"[", ""},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct json_ids taken;
        struct buf rest;
        char lists[128];
        buf_init(&rest, 1 << 20);
        CHECK_INT(json_ids_take(rows[i].text, strlen(rows[i].text), names, &rest, &taken), 0);
        spell(&taken, lists, sizeof(lists));
        CHECK_STR(lists, rows[i].lists);
        CHECK((rest.len > 0) == (taken.n_lists > 0));
        json_ids_done(&taken);
        buf_done(&rest);
    }
}

/* The parsed rest has the shape of the whole, and each list its ids. */
static void test_find(void)
{
    static const char text[] = "{\"n\":7,\"prompt\":[[1,2,3,4],[5,6],[7,8,9,10,11]],\"s\":[1,2,3,4,5]}";
    struct json_ids taken, none = {0};
    struct buf rest;
    json_t *v = NULL;
    size_t n = 0;
    buf_init(&rest, 1 << 20);
    CHECK_INT(json_ids_take(text, strlen(text), names, &rest, &taken), 0);
    v = json_loadb(rest.data, rest.len, 0, NULL);
    const json_t *prompt = json_object_get(v, "prompt");
    CHECK_INT(json_array_size(prompt), 3);
    const int32_t *ids = json_ids_find(&taken, json_array_get(prompt, 0), &n);
    CHECK(ids && n == 4 && ids[0] == 1 && ids[3] == 4);
    CHECK(json_ids_find(&taken, json_array_get(prompt, 1), &n) == NULL);
    ids = json_ids_find(&taken, json_array_get(prompt, 2), &n);
    CHECK(ids && n == 5 && ids[0] == 7 && ids[4] == 11);
    CHECK(json_ids_find(&taken, json_object_get(v, "n"), &n) == NULL);
    CHECK(json_ids_find(&taken, json_object_get(v, "s"), &n) == NULL);
    CHECK(json_ids_find(&taken, NULL, &n) == NULL);
    CHECK(json_ids_find(&none, json_array_get(prompt, 0), &n) == NULL);
    json_decref(v);
    json_ids_done(&taken);
    buf_done(&rest);
}

/* What is allocated stays below the estimate, for texts that are all lists, all commas, all brackets. */
static void test_estimate(void)
{
    static const char *const pieces[] = {
        "[1,2,3,4],", "[0,0,0,0],[1,1,1,1],", ",,,,", "[[[[", "[1,2,", "[123456789,123456789,123456789,123456789],"};
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        struct json_ids taken;
        struct buf text, rest;
        buf_init(&text, 1 << 20);
        buf_init(&rest, 1 << 20);
        buf_puts(&text, "{\"prompt\":[");
        for (int k = 0; k < 1000; k++)
            buf_puts(&text, pieces[i]);
        CHECK_INT(json_ids_take(text.data, text.len, names, &rest, &taken), 0);
        size_t ids = taken.n_lists ? taken.ends[taken.n_lists - 1] : 0;
        CHECK(rest.cap_bytes + ids * sizeof(int32_t) + taken.n_lists * sizeof(size_t) <= json_ids_estimate(text.data, text.len));
        json_ids_done(&taken);
        buf_done(&text);
        buf_done(&rest);
    }
}

int main(void)
{
    test_which_are_taken();
    test_find();
    test_estimate();
    return check_result();
}
