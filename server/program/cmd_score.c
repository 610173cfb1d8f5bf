/* dtrnet score: the loglikelihood endpoint without HTTP. One JSON object a line in (the body of POST /v1/loglikelihood, or
 * {"context": ..., "continuations": [...]} for one request), one answer a line out, in the same order. A bad line gets an {"error": ...}
 * line that names it, and the exit status is 1. Up to IN_FLIGHT lines are in the engine at once. */
#include "server/api/score.h"
#include "server/program/commands.h"
#include "server/program/settings.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IN_FLIGHT 256
#define LINE_ARENA ((size_t)1 << 31)

struct line {
    struct call call;
    struct http_response resp;
    struct score_job job;
    struct err err; /* code 0: the job runs */
    size_t number;  /* of the line in the input, from 1 */
};

/* {"context", "continuations", options...} stands for {"requests": [{"context", "continuations"}], options...}. */
static int wrap_short_form(json_t *body, struct err *err)
{
    json_t *context = json_object_get(body, "context"), *continuations = json_object_get(body, "continuations");
    if (!json_is_object(body))
        return err_set(err, ERR_INVALID, "it must be a JSON object");
    if (json_object_get(body, "requests") || !context)
        return 0;
    json_t *one = json_pack("[{s:O, s:O*}]", "context", context, "continuations", continuations);
    if (!one || json_object_set_new(body, "requests", one) || json_object_del(body, "context"))
        return err_set(err, ERR_NOMEM, "no memory for a line");
    json_object_del(body, "continuations");
    return 0;
}

static void start_line(struct server *s, const char *text, size_t len, size_t number, struct line *l)
{
    *l = (struct line){.call = {.server = s}, .number = number};
    arena_init(&l->call.arena, LINE_ARENA);
    buf_init(&l->resp.body, (size_t)1 << 31);
    l->call.resp = &l->resp;
    int r = json_parse_with_nul(text, len, "it", &l->call.body, &l->err);
    if (r >= 0)
        r = wrap_short_form(l->call.body, &l->err);
    if (r >= 0)
        r = score_start(&l->call, &l->job, &l->err);
    if (r >= 0)
        l->err.code = 0;
}

static int write_answer(struct line *l)
{
    struct writer w = writer_on(&l->resp.body);
    struct score_cursor c = {0};
    while (w.code >= 0 && !score_write_some(&l->job, &w, &c))
        ;
    return w.code < 0 ? err_set(&l->err, w.code, "no memory for the answer") : 0;
}

/* The sentence says which line is meant. */
static void name_line(struct line *l)
{
    char text[sizeof(l->err.text)];
    memcpy(text, l->err.text, sizeof(text));
    snprintf(l->err.text, sizeof(l->err.text), "line %zu: %.*s", l->number, (int)(sizeof(text) - 32), text);
}

/* Returns 1 for a line that failed, ERR_IO when the answer cannot be written. */
static int finish_line(struct line *l)
{
    int r = l->err.code ? l->err.code : score_finish(&l->job, &l->err);
    if (r >= 0)
        r = write_answer(l);
    if (r < 0) {
        buf_clear(&l->resp.body);
        name_line(l);
        api_write_error(&l->resp.body, &l->err);
    }
    bool written = fwrite(l->resp.body.data, 1, l->resp.body.len, stdout) == l->resp.body.len && putchar('\n') != EOF;
    buf_done(&l->resp.body);
    json_decref(l->call.body);
    arena_done(&l->call.arena);
    return !written ? ERR_IO : r < 0;
}

static int score_lines(struct server *s, struct err *err)
{
    struct line *ring = calloc(IN_FLIGHT, sizeof(*ring));
    char *text = NULL;
    size_t cap = 0, number = 0, begun = 0, done = 0;
    ssize_t len = 0;
    int r = ring ? 0 : ERR_NOMEM, failed = 0;
    while (r >= 0 && (len >= 0 || done < begun)) {
        if (len >= 0 && begun - done < IN_FLIGHT) {
            len = getline(&text, &cap, stdin);
            number++;
            if (len > 0 && strspn(text, " \t\r\n") < (size_t)len)
                start_line(s, text, (size_t)len, number, &ring[begun++ % IN_FLIGHT]);
            continue;
        }
        r = finish_line(&ring[done++ % IN_FLIGHT]);
        failed |= r == 1;
    }
    if (r == ERR_IO || fflush(stdout) == EOF)
        r = err_set(err, ERR_IO, "cannot write to standard output: %s", strerror(errno));
    else if (r < 0)
        err_set(err, r, "no memory for %d lines", IN_FLIGHT);
    for (; ring && done < begun; done++)
        finish_line(&ring[done % IN_FLIGHT]);
    free(text);
    free(ring);
    return r < 0 ? r : failed;
}

static int score(struct options *o, struct arena *arena, struct log *log, struct err *err)
{
    struct server_settings settings;
    struct server *s = NULL;
    int r = settings_open_server(o, arena, log, &settings, &s, err);
    if (r >= 0)
        r = score_lines(s, err);
    server_close(s);
    return r;
}

int cmd_score(int argc, char **argv)
{
    return command_run(COMMAND_SCORE, "score {\"context\": TEXT, \"continuations\": [TEXT, ...]} lines from standard input", argc, argv,
                       score);
}
