/* What the readers of a tokenizer.model share; private to spm_*.c. */
#pragma once
#include "tokenizer/hf_json.h"
#include "tokenizer/pipeline.h"
#include "tokenizer/settings.h"
#include "tokenizer/spm.h"
#include "tokenizer/spm_check.h"

#define SPM_N_NAMED 3 /* LlamaConverter takes the first three pieces by name, with score 0 */

struct spm_source {
    struct spm *spm;
    struct spm_facts facts;
};

/* How one of the three readers makes a model of the pieces. */
struct spm_reading {
    struct bpe_options bpe;
    int32_t unigram_unk;
    bool zero_named;  /* the first three pieces score 0 */
    bool normal_only; /* only pieces of type NORMAL merge */
    int (*order)(const void *, const void *);
};

/* Orders of struct spm_reading. LlamaConverter: the higher score, the longer left part, the longer right part, then the order of ids. */
int spm_by_score(const void *a, const void *b);
/* generate_merges without scores: the lower id, then the shorter left part. */
int spm_by_piece(const void *a, const void *b);
/* build_tokenizer_from_spm_proto: the higher score, the lower id, then the left part that comes first in the alphabet, which of one
 * piece's beginnings is the shorter. */
int spm_by_score_and_piece(const void *a, const void *b);
uint32_t spm_count_chars(const char *s, size_t len);

/* Once the pieces are there. */
int spm_load_bpe(struct pipeline *p, const struct spm_source *m, const struct spm_reading *how, struct err *err);
int spm_load_unigram(struct pipeline *p, const struct spm_source *m, const struct spm_reading *how, struct err *err);

/* Which pieces take the name that added_tokens_decoder gives to their id. */
enum spm_rename { SPM_RENAME_NONE, SPM_RENAME_FIRST_THREE, SPM_RENAME_ALL /* unless a piece without such a name has it */ };

int spm_load_pieces(struct pipeline *p, const struct spm_source *m, const struct settings *s, enum spm_rename rename, struct err *err);
/* Version 4: control and user-defined pieces are found in the text; the former are special. */
int spm_add_symbols(struct pipeline *p, const struct spm_source *m, struct err *err);
/* Version 5: they are extra special tokens, unless the configuration has such a list. */
int spm_extra_symbols(const struct spm_source *m, struct settings *s, bool user_defined, struct err *err);
int32_t spm_piece_id(const struct pipeline *p, const struct spm_name *name); /* BPE_UNK_MISSING: there is none */

int spm_no_memory(struct err *err);
/* Takes over a frame (frame.h) with normalizer, pre_tokenizer and decoder; NULL: no memory. */
int spm_fill_frame(struct pipeline *p, json_t *frame, struct err *err);

int spm_fill_4(struct pipeline *p, const struct spm_source *m, struct settings *s, struct err *err);
int spm_fill_5_class(struct pipeline *p, const struct spm_source *m, struct settings *s, struct err *err); /* with a frame of its own */
int spm_fill_5(struct pipeline *p, const struct spm_source *m, struct settings *s, struct err *err);
