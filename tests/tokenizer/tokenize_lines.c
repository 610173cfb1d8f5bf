/* Reads texts and prints ids, for comparisons with other tokenizers.
 *
 *   tokenize_lines DIR            each line of standard input is a JSON string; prints its ids as a JSON array
 *   tokenize_lines DIR special    the same, with the template's BOS and EOS
 *   tokenize_lines DIR pair       each line is [context, continuation]; prints [n_context, ids]
 *   tokenize_lines DIR decode     each line is an array of ids; prints [text, skip-special text, joined token bytes as hex]
 *   tokenize_lines --rules=5 DIR  by the rules of transformers 5
 *   tokenize_lines DIR bench N    reads all lines, encodes them N times, prints the bytes and the fastest pass in seconds
 */
#include "common/json.h"
#include "tokenizer/tokenizer.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int fail(const struct err *e)
{
    fprintf(stderr, "%s\n", e->text);
    return 1;
}

/* One line; NUL characters are allowed here, unlike in requests. */
static int parse(const char *text, size_t n, json_t **ret, struct err *err)
{
    json_error_t e;
    *ret = json_loadb(text, n, JSON_ALLOW_NUL | JSON_DECODE_ANY, &e);
    return *ret ? 0 : err_set(err, ERR_INVALID, "line: %s", e.text);
}

static void put_ids(const struct token_ids *ids)
{
    putchar('[');
    for (size_t i = 0; i < ids->n; i++)
        printf(i ? ",%d" : "%d", (int)ids->ids[i]);
    putchar(']');
}

static int do_encode(const struct tokenizer *t, const json_t *line, bool special, struct err *err)
{
    struct token_ids ids = {0};
    int r = tokenizer_encode(t, json_string_value(line), json_string_length(line), special, SIZE_MAX, &ids, err);
    if (r >= 0)
        put_ids(&ids);
    token_ids_done(&ids);
    return r;
}

static int do_pair(const struct tokenizer *t, const json_t *line, struct err *err)
{
    struct token_ids ids = {0};
    size_t n = 0;
    const json_t *a = json_array_get(line, 0), *b = json_array_get(line, 1);
    int r = tokenizer_encode_pair(t, json_string_value(a), json_string_length(a), json_string_value(b), json_string_length(b), SIZE_MAX,
                                  &ids, &n, err);
    if (r >= 0) {
        printf("[%zu,", n);
        put_ids(&ids);
        putchar(']');
    }
    token_ids_done(&ids);
    return r;
}

static int put_text(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip, struct err *err)
{
    char *text = NULL;
    size_t len;
    struct buf b;
    int r = tokenizer_decode(t, ids, n, skip, &text, &len, err);
    if (r < 0)
        return r;
    buf_init(&b, SIZE_MAX / 4);
    r = json_put_string(&b, text, len);
    fwrite(b.data, 1, b.len, stdout);
    buf_done(&b);
    free(text);
    return r;
}

static int do_decode(const struct tokenizer *t, const json_t *line, struct err *err)
{
    size_t n = json_array_size(line), len;
    int32_t *ids = malloc((n + 1) * sizeof(*ids));
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(line, i));
    putchar('[');
    int r = put_text(t, ids, n, false, err);
    putchar(',');
    if (r >= 0)
        r = put_text(t, ids, n, true, err);
    printf(",\"");
    for (size_t i = 0; i < n; i++) {
        const char *s = tokenizer_token_bytes(t, ids[i], i == 0, &len);
        for (size_t k = 0; k < len; k++)
            printf("%02x", (unsigned)(unsigned char)s[k]);
    }
    printf("\"]");
    free(ids);
    return r;
}

static int do_line(const struct tokenizer *t, const char *mode, const json_t *line, struct err *err)
{
    if (strcmp(mode, "pair") == 0)
        return do_pair(t, line, err);
    if (strcmp(mode, "decode") == 0)
        return do_decode(t, line, err);
    return do_encode(t, line, strcmp(mode, "special") == 0, err);
}

static int run_lines(const struct tokenizer *t, const char *mode, struct err *err)
{
    char *text = NULL;
    size_t cap = 0;
    ssize_t n;
    int r = 0;
    while (r >= 0 && (n = getline(&text, &cap, stdin)) > 0) {
        json_t *line = NULL;
        r = parse(text, (size_t)n, &line, err);
        if (r >= 0)
            r = do_line(t, mode, line, err);
        putchar('\n');
        json_decref(line);
    }
    free(text);
    return r;
}

static double seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static int bench(const struct tokenizer *t, int passes, struct err *err)
{
    json_t *lines = json_array();
    char *text = NULL;
    size_t cap = 0, bytes = 0, n_ids = 0;
    ssize_t n;
    int r = 0;
    while (r >= 0 && (n = getline(&text, &cap, stdin)) > 0) {
        json_t *line = NULL;
        r = parse(text, (size_t)n, &line, err);
        json_array_append_new(lines, line);
        bytes += json_string_length(line);
    }
    double best = 1e30;
    for (int p = 0; p < passes && r >= 0; p++) {
        double start = seconds();
        size_t i;
        json_t *line;
        n_ids = 0;
        json_array_foreach (lines, i, line) {
            struct token_ids ids = {0};
            r = tokenizer_encode(t, json_string_value(line), json_string_length(line), false, SIZE_MAX, &ids, err);
            n_ids += ids.n;
            token_ids_done(&ids);
        }
        double took = seconds() - start;
        best = took < best ? took : best;
    }
    printf("{\"bytes\":%zu,\"ids\":%zu,\"seconds\":%.6f}\n", bytes, n_ids, best);
    json_decref(lines);
    free(text);
    return r;
}

int main(int argc, char **argv)
{
    struct tokenizer *t = NULL;
    struct err e = {0};
    enum tokenizer_rules rules = TOKENIZER_RULES_4;
    if (argc > 2 && strncmp(argv[1], "--rules=", 8) == 0) {
        rules = argv[1][8] == '5' ? TOKENIZER_RULES_5 : TOKENIZER_RULES_4;
        argv++;
        argc--;
    }
    const char *mode = argc > 2 ? argv[2] : "";
    if (argc < 2) {
        fprintf(stderr, "usage: %s [--rules=4|5] DIR [special|pair|decode|bench N]\n", argv[0]);
        return 2;
    }
    if (tokenizer_open(argv[1], rules, NULL, &t, &e) < 0)
        return fail(&e);
    int r = strcmp(mode, "bench") == 0 ? bench(t, argc > 3 ? atoi(argv[3]) : 3, &e) : run_lines(t, mode, &e);
    tokenizer_close(t);
    return r < 0 ? fail(&e) : 0;
}
