/* Memory of a step in flight. */
#include "engine/schedule/flight.h"
#include <stdlib.h>
#include <string.h>

_Static_assert(STEPS_IN_FLIGHT_MAX <= BACKEND_MARKS, "a flight's id is its mark");

int flight_init(struct flight *f, const struct model *m, int id, int max_rows, struct err *err)
{
    size_t rows = (size_t)max_rows;
    *f = (struct flight){.k = m->k, .id = id};
    int r = batch_init(&f->batch, m->k, max_rows, m->config.n_layers, err);
    if (r >= 0)
        r = scores_init(&f->scores, m, max_rows, err);
    f->runs = malloc(rows * sizeof(*f->runs));
    f->wants = malloc(rows * sizeof(*f->wants));
    f->route = m->k->backend->alloc_host(m->k, rows * (size_t)m->config.n_layers);
    if (r >= 0 && (!f->runs || !f->wants || !f->route))
        r = err_set(err, ERR_NOMEM, "no memory for steps of %d rows", max_rows);
    if (r < 0)
        flight_done(f);
    return r;
}

void flight_done(struct flight *f)
{
    if (!f->k)
        return;
    batch_done(&f->batch);
    scores_done(&f->scores);
    free(f->runs);
    free(f->wants);
    f->k->backend->free_host(f->k, f->route);
    memset(f, 0, sizeof(*f));
}
