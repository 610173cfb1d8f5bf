/* What the readers of settings share; private to settings*.c. */
#pragma once
#include "tokenizer/kwargs.h"
#include "tokenizer/settings.h"

#define SETTINGS_CONFIG "tokenizer_config.json"

extern const char *const settings_role_keys[ROLE_COUNT];

int settings_bad(struct err *err, const char *file, const char *key, const char *wanted); /* ERR_CORRUPT */
int settings_set_content(struct settings *s, struct token_spec *t, const char *text, size_t len, struct err *err);
/* AddedToken(**object): flags are false, normalized the opposite of special. */
int settings_read_object(struct settings *s, const json_t *o, const char *file, struct token_spec *ret, struct err *err);
/* An empty list with room for n tokens. */
int settings_room(struct settings *s, struct token_list *l, const char *key, size_t n, size_t max, struct err *err);

/* Roles, lists, named tokens and CodeLlama's. */
int settings_read_tokens(struct settings *s, const json_t *kw, struct err *err);
/* After them: added_tokens_decoder, or added_tokens.json and `json`'s; roles that are among these take their flags. */
int settings_read_added(struct settings *s, const char *dir, const json_t *kw, const json_t *json, struct err *err);
