/* SentencePiece behind C: the only file that includes the library is spm.cpp; no exception and no std:: type leaves it. */
#pragma once
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "common/err.h"

struct spm;

/* A serialized model that spm_check has rebuilt. ERR_CORRUPT with the library's words if it refuses it, ERR_NOMEM. */
int spm_open(const void *model, size_t len, struct spm **ret, struct err *err);
void spm_close(struct spm *s); /* NULL is valid */

int spm_size(const struct spm *s);
/* Borrowed until spm_close. */
const char *spm_piece(const struct spm *s, int id, size_t *ret_len);
float spm_score(const struct spm *s, int id);

#ifdef __cplusplus
}
#endif
