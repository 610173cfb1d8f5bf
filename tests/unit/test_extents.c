/* Extents never overlap and join again. */
#include "engine/memory/extents.h"
#include "tests/check.h"

int main(void)
{
    struct extents e;
    int64_t off[100];
    if (!CHECK_INT(extents_init(&e, 1000), 0))
        return check_result();
    CHECK_INT(extents_take(&e, 1001), -1);
    for (int i = 0; i < 100; i++)
        off[i] = extents_take(&e, 10);
    CHECK_INT(off[99], 990);
    CHECK_INT(extents_take(&e, 1), -1);
    for (int i = 0; i < 100; i += 2) /* fifty holes, more than the list starts with */
        extents_give(&e, off[i], 10);
    CHECK_INT(e.n_holes, 50);
    CHECK_INT(extents_take(&e, 11), -1);
    CHECK_INT(extents_take(&e, 10), 0);
    extents_give(&e, 0, 10);
    for (int i = 1; i < 100; i += 2)
        extents_give(&e, off[i], 10);
    CHECK_INT(e.n_holes, 1);
    CHECK_INT(extents_take(&e, 1000), 0);
    extents_done(&e);
    extents_done(&e);
    return check_result();
}
