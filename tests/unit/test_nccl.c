/* NCCL's library is found or a sentence says why not: test_nccl CODE WORDS, beside the library that LD_LIBRARY_PATH names, if any. */
#include "kernels/cuda/nccl.h"
#include "tests/check.h"
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    const struct nccl *n = NULL;
    struct err err = {0};
    int code = atoi(argv[1]), r = nccl_load(&n, &err);
    if (code < 0 && r >= 0 && !getenv("FAKE_NCCL_VERSION")) {
        printf("skipped: this machine has NCCL\n");
        return 77;
    }
    CHECK_INT(r, code < 0 ? ERR_UNSUPPORTED : 0);
    CHECK((r < 0) == (n == NULL));
    if (!CHECK(strstr(err.text, argv[2]) != NULL))
        fprintf(stderr, "  %s\n", err.text);
    CHECK(!n || (n->init_all(NULL, 3, NULL) == 3 && !strcmp(n->error_string(1), "fake")));
    CHECK_INT(nccl_load(&n, &err), r); /* and goes on saying so */
    return check_result();
}
