/* Memory of a step on the host. */
#include "engine/schedule/step.h"
#include <stdlib.h>
#include <string.h>

int step_init(struct step *s, int id, const struct executor_limits *l, struct err *err)
{
    *s = (struct step){.id = id};
    int r = step_rows_init(&s->rows, l->max_rows, l->n_layers, err);
    s->runs = malloc((size_t)l->max_rows * sizeof(*s->runs));
    s->wants = malloc((size_t)l->max_rows * sizeof(*s->wants));
    s->saves = malloc((size_t)l->max_rows * sizeof(*s->saves));
    if (r >= 0 && (!s->runs || !s->wants || !s->saves))
        r = err_set(err, ERR_NOMEM, "no memory for steps of %d rows", l->max_rows);
    if (r < 0)
        step_done(s);
    return r;
}

void step_done(struct step *s)
{
    step_rows_done(&s->rows);
    free(s->runs);
    free(s->wants);
    free(s->saves);
    memset(s, 0, sizeof(*s));
}
