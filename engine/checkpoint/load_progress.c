#include "engine/checkpoint/load_progress.h"

void load_progress_add(struct load_progress *p, size_t steps)
{
    if (!p || !p->total || p->bytes < LOAD_PROGRESS_LEAST)
        return;
    p->done += steps;
    int quarters = (int)(4.0 * (double)p->done / (double)p->total);
    if (quarters > p->told)
        log_info(p->log, "%s: %d %% of %zu MiB", p->what, 25 * quarters, p->bytes >> 20);
    p->told = quarters > p->told ? quarters : p->told;
}
