/* Looks through a tokenizer.model before the SentencePiece library does.
 *
 * The file is a protobuf message (sentencepiece_model.proto) and hostile; old releases of the library crash on crafted
 * ones. So the library never gets the file: it gets a message rebuilt here, from pieces that were checked, with only the
 * trainer settings that matter and a normalizer that does nothing (Hugging Face's LLaMA tokenizers ignore the file's). */
#pragma once
#include "common/buf.h"
#include "common/err.h"
#include <stdbool.h>
#include <stdint.h>

#define SPM_MAX_FILE_BYTES ((size_t)64 << 20)
#define SPM_MAX_PIECES (1 << 20)
#define SPM_MAX_PIECE_BYTES 512

enum spm_model_type { SPM_UNIGRAM = 1, SPM_BPE = 2, SPM_WORD = 3, SPM_CHAR = 4 };

enum spm_piece_type { SPM_NORMAL = 1, SPM_UNKNOWN = 2, SPM_CONTROL = 3, SPM_USER_DEFINED = 4, SPM_UNUSED = 5, SPM_BYTE = 6 };

struct spm_name { /* a piece as trainer_spec spells it; longer ones are refused */
    char s[SPM_MAX_PIECE_BYTES + 1];
    size_t len;
};

struct spm_facts {
    enum spm_model_type model_type;
    size_t n_pieces;
    bool byte_fallback;
    int unk_id;           /* index of the one piece of type UNKNOWN */
    unsigned char *types; /* [n_pieces] enum spm_piece_type; spm_facts_done frees it */
    /* what trainer_spec says of itself: ids below 0 mean none */
    int64_t named_unk, named_bos, named_eos;
    struct spm_name unk_piece, bos_piece, eos_piece;
    /* normalizer_spec */
    bool dummy_prefix, remove_extra_spaces, escape_spaces;
    unsigned char *charsmap; /* [charsmap_len] a copy; NULL: none */
    size_t charsmap_len;
};

void spm_facts_done(struct spm_facts *f);

/* Appends the rebuilt message to *ret_model. ERR_CORRUPT names what is wrong: truncated or malformed protobuf, no pieces or
 * too many, an empty, overlong, non-UTF-8 or NUL-holding piece, a score that is not finite, an unknown type, not
 * exactly one UNKNOWN piece, a BYTE piece not spelled <0xNN>, byte_fallback without all 256 of them, a charsmap whose trie runs out of its bounds. */
int spm_check(const unsigned char *data, size_t len, struct buf *ret_model, struct spm_facts *ret_facts, struct err *err);
