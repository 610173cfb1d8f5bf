#include "common/err.h"
#include "tests/check.h"

int main(void)
{
    struct err e = {0};
    CHECK_INT(err_set(&e, ERR_INVALID, "bad %d\n\x01", 7), ERR_INVALID);
    CHECK_INT(e.code, ERR_INVALID);
    CHECK_STR(e.text, "bad 7??");
    CHECK_STR(e.param, "");
    CHECK_INT(err_field(&e, ERR_AUTH, "key", "no"), ERR_AUTH);
    CHECK_STR(e.param, "key");
    CHECK_INT(err_set(NULL, ERR_IO, "dropped"), ERR_IO);

    char longer[2000];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = 0;
    err_field(&e, ERR_IO, longer, "%s", longer);
    CHECK_INT(strlen(e.text), sizeof(e.text) - 1);
    CHECK_INT(strlen(e.param), sizeof(e.param) - 1);

    static const struct {
        int code, http;
        const char *name, *type;
    } rows[] = {
#define X(code, value, http, type) {code, http, #code, type},
        ERR_LIST(X)
#undef X
            {-999, 500, "ERR_UNKNOWN", "server_error"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        CHECK_INT(err_http_status(rows[i].code), rows[i].http);
        CHECK_STR(err_name(rows[i].code), rows[i].name);
        CHECK_STR(err_openai_type(rows[i].code), rows[i].type);
    }
    return check_result();
}
