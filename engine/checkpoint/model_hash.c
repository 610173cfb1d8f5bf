#include "engine/checkpoint/model_hash.h"
#include "common/mapfile.h"
#include "engine/checkpoint/load_progress.h"
#include "engine/checkpoint/model_config.h"
#include "engine/checkpoint/safetensors.h"
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#define CHUNK ((size_t)8 << 20)

static int hash_config(EVP_MD_CTX *ctx, const char *dir, struct err *err)
{
    char path[PATH_MAX];
    struct mapfile m = {0};
    int r = model_config_path(dir, path, err);
    if (r >= 0)
        r = mapfile_open(&m, path, err);
    if (r >= 0 && m.len && !EVP_DigestUpdate(ctx, m.data, m.len))
        r = err_set(err, ERR_INTERNAL, "SHA-256 of %s failed", path);
    mapfile_close(&m);
    return r;
}

static int hash_weights(EVP_MD_CTX *ctx, const struct safetensors *s, const atomic_bool *stop, struct load_progress *progress,
                        struct err *err)
{
    for (int i = 0; i < safetensors_file_count(s); i++) {
        size_t len = 0;
        const unsigned char *bytes = safetensors_file_bytes(s, i, &len);
        for (size_t at = 0, n; at < len; at += n) {
            if (stop && atomic_load(stop))
                return err_set(err, ERR_CANCELLED, "the model was closed before it was hashed");
            n = len - at < CHUNK ? len - at : CHUNK;
            if (!EVP_DigestUpdate(ctx, bytes + at, n))
                return err_set(err, ERR_INTERNAL, "SHA-256 of the weights failed");
            load_progress_add(progress, n);
        }
    }
    return 0;
}

int model_hash(const struct model_hash_source *of, const atomic_bool *stop, struct load_progress *progress, char ret_hex[65],
               struct err *err)
{
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int r = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) ? 0 : err_set(err, ERR_NOMEM, "no memory for the model's hash");
    if (r >= 0)
        r = hash_config(ctx, of->dir, err);
    if (r >= 0)
        r = hash_weights(ctx, of->s, stop, progress, err);
    if (r >= 0 && of->more && !EVP_DigestUpdate(ctx, of->more, strlen(of->more)))
        r = err_set(err, ERR_INTERNAL, "SHA-256 of the model failed");
    if (r >= 0 && !EVP_DigestFinal_ex(ctx, md, &n))
        r = err_set(err, ERR_INTERNAL, "SHA-256 of the model failed");
    EVP_MD_CTX_free(ctx);
    for (unsigned i = 0; r >= 0 && i < n; i++)
        sprintf(ret_hex + 2 * i, "%02x", md[i]);
    return r;
}
