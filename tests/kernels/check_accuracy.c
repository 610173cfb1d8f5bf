#include "tests/kernels/check_accuracy.h"
#include <math.h>

enum { ROWS = 48, COLUMNS = 80 };

struct errors {
    double sum, worst;
};

static void note(struct errors *e, double difference)
{
    e->sum += difference * difference;
    e->worst = fmax(e->worst, fabs(difference));
}

/* Even in [-scale, scale), about one element of a row times 2^10. */
static float *values(struct check *c, int rows, int k, double scale, bool outliers)
{
    float *v = check_floats(c, (size_t)rows * k, -scale, scale);
    for (int i = 0; outliers && i < rows; i++)
        v[(size_t)i * k + check_int(c, 0, k - 1)] *= 1024;
    return v;
}

static void multiply(struct check *c, const char *what, const float *x, const float *w, int k, float *y)
{
    struct matrix_part part = {w, DTYPE_F32, COLUMNS, NULL, DTYPE_F32};
    struct kern_matrix *m = NULL;
    struct err err = {0};
    if (c->k->ops->matrix_new(c->k, MATRIX_LINEAR, &part, 1, k, &m, &err) < 0) {
        check_fail(c, what, "%s", err.text);
        return;
    }
    void *dx = check_up(c, x, sizeof(*x) * ROWS * k), *dy = check_up(c, y, sizeof(*y) * ROWS * COLUMNS);
    check_code(c, what, c->k->ops->matmul_f32(c->k, dy, dx, m, (struct rows){NULL, NULL, ROWS}));
    check_down(c, what, y, dy, sizeof(*y) * ROWS * COLUMNS);
    check_drop(c, dx);
    check_drop(c, dy);
    c->k->ops->matrix_free(c->k, m);
}

static void compare(struct check *c, const char *what, const float *x, const float *w, int k, const float *y)
{
    struct errors plain = {0}, ours = {0};
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++) {
            const float *a = x + (size_t)i * k, *b = w + (size_t)j * k;
            float chain = 0;
            double exact = 0;
            for (int l = 0; l < k; l++) {
                chain = fmaf(a[l], b[l], chain);
                exact += (double)a[l] * b[l];
            }
            note(&plain, chain - exact);
            note(&ours, y[i * COLUMNS + j] - exact);
        }
    double rms = sqrt(ours.sum / plain.sum), worst = ours.worst / plain.worst;
    if (strcmp(c->backend->numerics_class(c->k), "portable-1"))
        printf("%-40s error beside plain float32's: rms %.3f, largest %.3f\n", what, rms, worst);
    if (!(rms <= 1 && worst <= 1))
        check_fail(c, what, "error beside plain accumulation's: rms %.3f, largest %.3f", rms, worst);
}

static void one(struct check *c, int k, double scale, bool x_outliers, bool w_outliers)
{
    char what[96];
    snprintf(what, sizeof(what), "accuracy k %d, x to %g%s%s", k, scale, x_outliers ? ", outliers" : "", w_outliers ? " and in w" : "");
    float *x = values(c, ROWS, k, scale, x_outliers), *w = values(c, COLUMNS, k, 0.05, w_outliers);
    float *y = check_floats(c, ROWS * COLUMNS, 0, 0);
    c->cases++;
    multiply(c, what, x, w, k, y);
    compare(c, what, x, w, k, y);
    free(x);
    free(w);
    free(y);
}

void check_accuracy(struct check *c)
{
    static const int depths[] = {384, 960, 2560};
    for (size_t i = 0; i < sizeof(depths) / sizeof(*depths); i++)
        for (int outliers = 0; outliers < 4; outliers++)
            one(c, depths[i], 3, outliers & 1, outliers & 2);
    one(c, 960, 1e-30, false, false);
    one(c, 960, 1e30, false, false);
}
