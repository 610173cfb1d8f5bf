/* The Mamba router as kernels/mamba.h has it, step by step, in double. */
#include "tests/kernels/mamba_case.h"
#include <math.h>

static double silu(double z)
{
    return z / (1 + exp(-z));
}

/* y[rows] = w x + b */
static void linear(double *y, const float *w, const float *b, const double *x, int rows, int cols)
{
    for (int i = 0; i < rows; i++) {
        y[i] = b ? b[i] : 0;
        for (int j = 0; j < cols; j++)
            y[i] += w[(size_t)i * cols + j] * x[j];
    }
}

/* a [e] joins the tail, c [e] comes from both. */
static void reference_conv(const struct mamba_case *p, struct mamba_reference *ref, const double *a, double *c)
{
    int e = p->s.e, taps = p->s.n_conv;
    for (int i = 0; i < e; i++) {
        c[i] = p->t[CONV_BIAS].v[i];
        for (int j = 0; j < taps; j++)
            c[i] += p->t[CONV].v[i * taps + j] * (j < taps - 1 ? ref->tail[j * e + i] : a[i]);
        c[i] = silu(c[i]);
    }
    memmove(ref->tail, ref->tail + e, sizeof(double) * e * (taps - 2));
    memcpy(ref->tail + (size_t)(taps - 2) * e, a, sizeof(double) * e);
}

/* y [e] from c [e] and z [e]. */
static void reference_scan(const struct mamba_case *p, struct mamba_reference *ref, const double *c, const double *z, double *y)
{
    const struct mamba_shape *s = &p->s;
    double *x = malloc(sizeof(double) * (s->n_dt + 2 * s->n_state)), *delta = malloc(sizeof(double) * s->e);
    linear(x, p->t[X].v, NULL, c, s->n_dt + 2 * s->n_state, s->e);
    linear(delta, p->t[DT].v, p->t[DT_BIAS].v, x, s->e, s->n_dt);
    for (int i = 0; i < s->e; i++) {
        double dt = log1p(exp(delta[i]));
        y[i] = p->t[SKIP].v[i] * c[i];
        for (int j = 0; j < s->n_state; j++) {
            double *state = &ref->state[i * s->n_state + j];
            *state = exp(dt * -exp(p->t[A_LOG].v[i * s->n_state + j])) * *state + dt * x[s->n_dt + j] * c[i];
            y[i] += *state * x[s->n_dt + s->n_state + j];
        }
        y[i] *= silu(z[i]);
    }
    free(x);
    free(delta);
}

void mamba_reference_row(const struct mamba_case *p, struct mamba_reference *ref, const float *x)
{
    const struct mamba_shape *s = &p->s;
    double *v = calloc(s->d + 3 * s->r + 4 * (size_t)s->e, sizeof(double)), *u = v + s->d, *n = u + s->r, *az = n + s->r,
           *c = az + 2 * s->e, *y = c + s->e, *o = y + s->e, square = 0;
    for (int i = 0; i < s->d; i++)
        v[i] = x[i];
    linear(u, p->t[IN].v, p->t[IN_BIAS].v, v, s->r, s->d);
    for (int i = 0; i < s->r; i++)
        square += u[i] * u[i];
    for (int i = 0; i < s->r; i++)
        n[i] = u[i] / sqrt(square / s->r + p->parts.eps) * p->t[NORM].v[i];
    linear(az, p->t[MIX].v, NULL, n, 2 * s->e, s->r);
    reference_conv(p, ref, az, c);
    reference_scan(p, ref, c, az + s->e, y);
    linear(o, p->t[MIX_OUT].v, NULL, y, s->r, s->e);
    ref->size = 1;
    for (int i = 0; i < s->r; i++) {
        o[i] += u[i];
        ref->size += fabs(o[i] * p->t[OUT].v[i]) + fabs(o[i] * p->t[OUT].v[s->r + i]);
    }
    linear(ref->r, p->t[OUT].v, p->t[OUT_BIAS].v, o, 2, s->r);
    free(v);
}
