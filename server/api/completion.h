/* What the files of POST /v1/completions share: the request as it was understood, its sequences, and the pieces of its answer.
 *
 * completion_parse.c reads and checks; api_completions.c runs it and answers at once; completion_stream.c answers in events;
 * completion_text.c makes text of tokens; completion_write.c writes choices, completion_lists.c what they list of each token. */
#pragma once
#include "server/api/api.h"
#include "server/api/float_memo.h"
#include "server/api/progress.h"
#include "server/api/stop.h"
#include "server/api/token_times.h"
#include <time.h>

#define COMPLETION_MAX_N 128
#define COMPLETION_DEFAULT_TOKENS 16
#define COMPLETION_MAX_ENTRIES (1 << 26) /* logprobs and alternatives that one answer may hold */

struct completion_prompt {
    const char *text; /* as the client sent it; NULL: it sent ids */
    size_t text_len;
    int32_t *ids; /* [n], n >= 1 */
    size_t n;
    size_t hidden; /* leading ids that stand for no text of the prompt: BOS put in front */
};

/* One sequence: prompt i / n, repetition i % n. Used by the request's thread only.
 *
 * The engine runs ahead of the text: tokens behind the one that completes a stop string are dropped, and nothing of an answer depends on
 * how many they were. */
struct completion_choice {
    const struct completion_prompt *prompt;
    struct stop_text text;     /* of the generated tokens that count */
    int n_new;                 /* so many they are, the one that ends the text included */
    enum finish_reason finish; /* FINISH_NONE while more may come, and without any token */
    int code;                  /* why decoding failed, or 0 */
    struct token_times times;  /* the engine's thread alone uses it, and reads the next */
    struct progress *progress; /* told of tokens and of the end; NULL: nobody waits for them */
};

struct completion {
    struct call *call;
    struct completion_prompt *prompts;
    size_t n_prompts;
    int n, n_choices; /* n_choices = n_prompts * n */
    int max_tokens;
    int logprobs, prompt_logprobs; /* -1: none, else alternatives a token */
    int n_top;                     /* alternatives in the engine's lists: what both want */
    bool echo, ignore_eos, token_ids, stream, include_usage;
    bool skip_special;         /* special tokens add no text */
    struct logit_edits *edits; /* NULL: none */
    int min_tokens;            /* so many come before anything may end the generation */
    int32_t *stop_ids;         /* [n_stop_ids] tokens that end a generation */
    size_t n_stop_ids;
    double temperature, top_p;
    int top_k;
    uint64_t seed;
    struct stop_set stop;
    struct eval_request *reqs;         /* [n_choices] */
    struct completion_choice *choices; /* [n_choices] */
    struct float_memo *floats;         /* of its answer */
    time_t created;
};

/* Reads c->body into *ret, in the arena; choices and requests are ready to be submitted. */
int completion_parse(struct call *c, struct completion *ret, struct err *err);
void completion_done(struct completion *p); /* what is not in the arena; copes with a zeroed struct */

/* Tells `progress` (borrowed; until the ticket is freed) of tokens and ends. Before api_submit. */
void completion_follow(struct completion *p, struct progress *progress);
/* Takes the next token that choice i has got into its text; false: there is none, or the choice has ended. A stop string or a stop id ends
 * its sequence. */
bool completion_take_one(struct completion *p, struct engine_ticket *t, int i);
/* All that it has got since the last call. */
void completion_take(struct completion *p, struct engine_ticket *t, int i);
/* Adds a generated token nothing to the text? */
bool completion_is_silent(const struct completion *p, int32_t id);
/* Is the text watched while it is made, because it may end a generation? */
bool completion_has_stops(const struct completion *p);
/* The first reason why the finished ticket has no answer, or 0. What comes behind a complete stop string is no reason. */
int completion_check(struct completion *p, const struct engine_ticket *t, struct err *err);
/* "stop", "length", or NULL while more may come and the ticket has not ended. */
const char *completion_finish(const struct completion *p, int i, bool ended);
/* The echoed text of a prompt, appended to `out`. */
int completion_prompt_text(const struct completion *p, const struct completion_prompt *prompt, struct buf *out);

/* The lists of an answer, in their order: the members of "logprobs", and beside it vLLM's prompt_logprobs. */
enum completion_list {
    COMPLETION_LIST_TOKENS,
    COMPLETION_LIST_LOGPROBS,
    COMPLETION_LIST_TOP,
    COMPLETION_LIST_OFFSETS,
    COMPLETION_LIST_PROMPT,
    COMPLETION_LISTS
};
/* A list's key and its bracket. */
void completion_open_list(struct writer *w, enum completion_list list);
/* Entries of such a list of choice i: an echoed prompt's first, then the generated ones. */
size_t completion_list_length(const struct completion *p, int i, enum completion_list list);
/* Writes entries from .. to-1; *chars is the offset of the first one's text, and is moved by the list of offsets. */
void completion_write_entries(struct completion *p, struct writer *w, const struct engine_ticket *t, int i, enum completion_list list,
                              size_t from, size_t to, size_t *chars);

/* "logprobs": {...} or null for generated tokens from .. to-1 of choice i, as events have them; *chars is the offset of the first and is moved
 * behind the last. */
void completion_write_logprobs(struct completion *p, struct writer *w, const struct engine_ticket *t, int i, int from, int to,
                               size_t *chars);

/* Where the writing of choices stands: they may be larger than memory for an answer, so they are written in pieces. */
struct completion_cursor {
    int choice;
    bool begun;
    int list;         /* enum completion_list */
    size_t at, chars; /* entry of the list; offset of its token */
};
#define COMPLETION_SLICE 256 /* entries of a list that are written at once */

/* Writes some more of the cursor's choice, of a finished ticket: prompt, the tokens taken so far, and the reason for the end if that is among
 * them. True when it was the end, and the cursor stands before the next. Meanwhile no token may be taken. */
bool completion_write_some(struct completion *p, struct writer *w, const struct engine_ticket *t, struct completion_cursor *c);
/* id, object, created, model: the members that begin an answer and every event of a stream. */
void completion_write_head(struct completion *p, struct writer *w);
/* "usage": {...} */
void completion_write_usage(struct completion *p, struct writer *w, const struct engine_ticket *t);

/* Starts the streamed answer. On success the stream owns p's call (arena, body) and sets c->resp->stream. */
int completion_stream(struct call *c, struct completion *p, struct err *err);
