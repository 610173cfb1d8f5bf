/* extern "C" over sentencepiece::SentencePieceProcessor; every entry catches what the library throws. */
#include "tokenizer/spm.h"
#include <new>
#include <sentencepiece_processor.h>

struct spm {
    sentencepiece::SentencePieceProcessor processor;
};

extern "C" int spm_open(const void *model, size_t len, struct spm **ret, struct err *err)
{
    struct spm *s = new (std::nothrow) spm;
    if (!s)
        return err_set(err, ERR_NOMEM, "no memory for tokenizer.model");
    try {
        auto status = s->processor.LoadFromSerializedProto({static_cast<const char *>(model), len});
        if (status.ok()) {
            *ret = s;
            return 0;
        }
        err_set(err, ERR_CORRUPT, "tokenizer.model: %s", status.ToString().c_str());
    } catch (const std::exception &e) {
        err_set(err, ERR_CORRUPT, "tokenizer.model: %s", e.what());
    } catch (...) {
        err_set(err, ERR_CORRUPT, "tokenizer.model: the SentencePiece library refused it");
    }
    delete s;
    return ERR_CORRUPT;
}

extern "C" void spm_close(struct spm *s)
{
    delete s;
}

extern "C" int spm_size(const struct spm *s)
{
    return s->processor.GetPieceSize();
}

extern "C" const char *spm_piece(const struct spm *s, int id, size_t *ret_len)
{
    const std::string &piece = s->processor.IdToPiece(id);
    *ret_len = piece.size();
    return piece.c_str();
}

extern "C" float spm_score(const struct spm *s, int id)
{
    return s->processor.GetScore(id);
}
