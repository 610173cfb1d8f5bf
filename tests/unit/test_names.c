/* Engine fields in errors, as flags and as fields of requests. */
#include "server/api/names.h"
#include "tests/check.h"

static const struct {
    const char *param, *text, *flags, *flag_param, *http, *http_param;
} cases[] = {
    {"kv_cache_bytes", "kv_cache_bytes holds 4 rows, but one sequence of max_model_len 20 may need 40",
     "--kv-cache-memory holds 4 rows, but one sequence of --max-model-len 20 may need 40", "--kv-cache-memory",
     "kv_cache_bytes holds 4 rows, but one sequence of max_model_len 20 may need 40", "kv_cache_bytes"},
    {"max_new", "max_new is 5; it must be in 0..4 (max_model_len)", "max_new is 5; it must be in 0..4 (--max-model-len)", "max_new",
     "max_tokens is 5; it must be in 0..4 (max_model_len)", "max_tokens"},
    {"top_k", "top_k is 21; sample_top_k -1, my_top_k, top_k2", "top_k is 21; sample_top_k -1, my_top_k, top_k2", "top_k",
     "logprobs is 21; top_k -1, my_top_k, top_k2", "logprobs"},
    {"", "config.json: rope_scaling is odd; eos_token_id too", "config.json: rope_scaling is odd; eos_token_id too", "",
     "config.json: rope_scaling is odd; eos_token_id too", ""},
    {"tokens", "tokens", "tokens", "tokens", "tokens", "tokens"},
    {"", "", "", "", "", ""},
};

int main(void)
{
    struct err err;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        err_field(&err, ERR_INVALID, cases[i].param, "%s", cases[i].text);
        names_as_flags(&err);
        CHECK_STR(err.text, cases[i].flags);
        CHECK_STR(err.param, cases[i].flag_param);
        err_field(&err, ERR_INVALID, cases[i].param, "%s", cases[i].text);
        names_as_request_fields(&err);
        CHECK_STR(err.text, cases[i].http);
        CHECK_STR(err.param, cases[i].http_param);
    }
    char full[512];
    memset(full, 'x', sizeof(full));
    memcpy(full, "n_threads ", 10);
    full[511] = 0;
    err_set(&err, ERR_INVALID, "%s", full);
    names_as_flags(&err); /* one byte longer: cut, not overrun */
    CHECK(!strncmp(err.text, "--threads xxx", 13) && strlen(err.text) == 511);
    memcpy(full, "kv_cache_bytes ", 15);
    err_set(&err, ERR_INVALID, "%s", full);
    names_as_flags(&err);
    CHECK(!strncmp(err.text, "--kv-cache-memory xxx", 21) && strlen(err.text) == 511);
    names_as_flags(NULL);
    return check_result();
}
