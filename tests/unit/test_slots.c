/* Slots are handed out once and come back, the last given first: no more different ones than there were out at a time. */
#include "engine/memory/slots.h"
#include "tests/check.h"

int main(void)
{
    struct slots s;
    int a[10], b[6];
    char seen[16] = {0};
    if (!CHECK_INT(slots_init(&s, 16), 0))
        return check_result();
    slots_take(&s, 10, a);
    slots_take(&s, 6, b);
    CHECK_INT(s.n_free, 0);
    for (int i = 0; i < 10; i++)
        seen[a[i]]++;
    for (int i = 0; i < 6; i++)
        seen[b[i]]++;
    for (int i = 0; i < 16; i++)
        CHECK_INT(seen[i], 1);
    slots_give(&s, a, 10);
    slots_take(&s, 3, b);
    CHECK_INT(b[0], a[0]);
    CHECK_INT(s.n_free, 7);
    slots_done(&s);
    slots_done(&s);
    CHECK_INT(slots_init(&s, 16), 0);
    CHECK_INT(s.most, 0);
    for (int round = 0; round < 9; round++) {
        int n = 1 + round % 4;
        slots_take(&s, n, a);
        slots_take(&s, 3, b);
        slots_give(&s, a, n);
        slots_give(&s, b, 3);
        for (int i = 0; i < n; i++)
            CHECK(a[i] < s.most);
        CHECK_INT(s.most, round < 3 ? n + 3 : 7);
    }
    slots_done(&s);
    CHECK_INT(slots_init(&s, 0), 0);
    CHECK_INT(s.n_free, 0);
    slots_done(&s);
    return check_result();
}
