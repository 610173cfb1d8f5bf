/* See tokenizer_hash.h. */
#include "server/api/tokenizer_hash.h"
#include "common/mapfile.h"
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const names[] = {
    "added_tokens.json", "generation_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
};

static int hash_file(EVP_MD_CTX *ctx, const char *dir, const char *name, struct err *err)
{
    char path[PATH_MAX];
    unsigned char length[8];
    struct mapfile m = {0};
    if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path) || access(path, F_OK))
        return 0;
    int r = mapfile_open(&m, path, err);
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)m.len >> (8 * i));
    if (r >= 0 && !(EVP_DigestUpdate(ctx, name, strlen(name) + 1) && EVP_DigestUpdate(ctx, length, sizeof(length)) &&
                    (!m.len || EVP_DigestUpdate(ctx, m.data, m.len))))
        r = err_set(err, ERR_INTERNAL, "SHA-256 of %s failed", path);
    if (r >= 0)
        r = mapfile_check(&m, err);
    mapfile_close(&m);
    return r;
}

int tokenizer_hash(const char *dir, char ret_hex[65], struct err *err)
{
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int r = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) ? 0 : err_set(err, ERR_NOMEM, "no memory for the tokenizer's hash");
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && r >= 0; i++)
        r = hash_file(ctx, dir, names[i], err);
    if (r >= 0 && !EVP_DigestFinal_ex(ctx, md, &n))
        r = err_set(err, ERR_INTERNAL, "SHA-256 of the tokenizer failed");
    EVP_MD_CTX_free(ctx);
    for (unsigned i = 0; r >= 0 && i < n; i++)
        sprintf(ret_hex + 2 * i, "%02x", md[i]);
    return r;
}
