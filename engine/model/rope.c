/* The arithmetic follows torch step by step in float32 (base ** (2j/D), then its reciprocal), so that frequencies agree with the
 * reference to the last bits that its powf leaves open. */
#include "engine/model/rope.h"
#include "kernels/portable.h"
#include <assert.h>
#include <math.h>

static void llama3(const struct rope_config *c, int half, float *f)
{
    const float pi2 = (float)(2 * M_PI);
    float long_wave = (float)(c->original_length / c->low_freq_factor), short_wave = (float)(c->original_length / c->high_freq_factor);
    float factor = (float)c->factor;
    for (int j = 0; j < half; j++) {
        float wave = pi2 / f[j];
        float s = ((float)c->original_length / wave - (float)c->low_freq_factor) / (float)(c->high_freq_factor - c->low_freq_factor);
        if (wave > long_wave)
            f[j] /= factor;
        else if (!(wave < short_wave))
            f[j] = (1 - s) * f[j] / factor + s * f[j];
    }
}

/* Index of the frequency that turns `turns` times within the original length. */
static double yarn_corr(const struct rope_config *c, int head_dim, double turns)
{
    return head_dim * portable_log_double(c->original_length / (turns * 2 * M_PI)) / (2 * portable_log_double(c->theta));
}

static void yarn(const struct rope_config *c, int head_dim, int half, float *f)
{
    double low = fmax(floor(yarn_corr(c, head_dim, c->beta_fast)), 0);
    double high = fmin(ceil(yarn_corr(c, head_dim, c->beta_slow)), head_dim - 1);
    if (low == high)
        high += 0.001;
    for (int j = 0; j < half; j++) {
        float ramp = fminf(fmaxf((float)((j - low) / (high - low)), 0), 1);
        f[j] = f[j] / (float)c->factor * ramp + f[j] * (1 - ramp);
    }
}

/* base^y, rounded once from double; base >= 1. */
static float power(float base, float y)
{
    return (float)portable_exp_double((double)y * portable_log_double((double)base));
}

void rope_frequencies(const struct rope_config *c, int head_dim, float *inv_freq)
{
    int half = head_dim / 2;
    for (int j = 0; j < half; j++)
        inv_freq[j] = 1.0f / power((float)c->theta, (float)(2 * j) / (float)head_dim);
    if (c->type == ROPE_LINEAR)
        for (int j = 0; j < half; j++)
            inv_freq[j] /= (float)c->factor;
    else if (c->type == ROPE_LLAMA3)
        llama3(c, half, inv_freq);
    else if (c->type == ROPE_YARN)
        yarn(c, head_dim, half, inv_freq);
}

void rope_tables(const struct rope_config *c, int head_dim, int width, int n_pos, float *cos_table, float *sin_table)
{
    int half = head_dim / 2;
    float freq[MODEL_MAX_HEAD_DIM / 2];
    assert(head_dim <= MODEL_MAX_HEAD_DIM && width >= half);
    float m = (float)c->attention_factor;
    rope_frequencies(c, head_dim, freq);
    for (int t = 0; t < n_pos; t++)
        for (int j = 0; j < width; j++) {
            double sine = 0, cosine = 1;
            if (j < half)
                portable_sin_cos((float)t * freq[j], &sine, &cosine);
            cos_table[(size_t)t * width + j] = j < half ? (float)cosine * m : 1;
            sin_table[(size_t)t * width + j] = j < half ? (float)sine * m : 0;
        }
}
