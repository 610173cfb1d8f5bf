/* Lists of ids taken out of a JSON text before it is parsed: a request to score is mostly ids, and jansson would make a value of each.
 *
 * A list that was taken stands in the text as a list of one number that no client has sent, so that the parsed form has the same shape and
 * its errors the same words. Lists of anything but plain integers stay as they are. */
#pragma once
#include "common/buf.h"
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define JSON_IDS_LEAST 4 /* shorter lists stay */

struct json_ids {
    int32_t *ids; /* [ends[n_lists - 1]] of all lists, one after the other, each 0 to 999,999,999; NULL: nothing was taken */
    size_t *ends; /* [n_lists] */
    size_t n_lists;
};

/* Bytes that taking the lists of a text needs at most, the copy of the text included. */
size_t json_ids_estimate(const char *text, size_t len);
/* Takes the lists that stand under one of the members `names` (ended by NULL), at any depth. `rest` (initialised, empty) gets the text without them; both
 * stay empty if there are none. The text may be no JSON: then neither is the rest. ERR_NOMEM, ERR_TOO_LARGE. */
int json_ids_take(const char *text, size_t len, const char *const *names, struct buf *rest, struct json_ids *ret);
void json_ids_done(struct json_ids *taken);
/* The ids that `list` stands for, borrowed; NULL: it holds its values itself. */
const int32_t *json_ids_find(const struct json_ids *taken, const json_t *list, size_t *ret_n);
