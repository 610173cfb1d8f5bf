/* The report of inspect.h as lines of text. */
#include "engine/tools/inspect.h"
#include "engine/tools/inspect_plan.h"
#include <string.h>

static const json_t *at(const json_t *report, const char *a, const char *b)
{
    const json_t *v = json_object_get(report, a);
    return b ? json_object_get(v, b) : v;
}

static double number(const json_t *report, const char *a, const char *b)
{
    return json_number_value(at(report, a, b));
}

static const char *text(const json_t *report, const char *a, const char *b)
{
    const char *s = json_string_value(at(report, a, b));
    return s ? s : "-";
}

/* 345,355,200 */
static int put_grouped(struct buf *out, const char *label, json_int_t v)
{
    char digits[32], grouped[48];
    int n = snprintf(digits, sizeof(digits), "%lld", (long long)v), k = 0;
    for (int i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0)
            grouped[k++] = ',';
        grouped[k++] = digits[i];
    }
    return buf_printf(out, "%-22s%.*s\n", label, k, grouped);
}

static int put_costs(const json_t *report, struct buf *out)
{
    const json_t *f = at(report, "flops_per_token", NULL), *kv = at(report, "kv_bytes_per_token", NULL);
    int r = buf_printf(out,
                       "\na token at routing rate %g (nested layers execute %g) with %g tokens of context\n                      model     "
                       "     dense          ratio\n",
                       number(f, "route_rate", NULL), number(f, "execute_rate", NULL), number(f, "context", NULL));
    static const char *const labels[] = {"causal", "full"};
    for (int i = 0; i < 2 && r >= 0; i++)
        r = buf_printf(out, "MFLOPs, %-14s%-15.2f%-15.2f%.3f\n", labels[i], number(f, labels[i], "model") / 1e6,
                       number(f, labels[i], "dense") / 1e6, number(f, labels[i], "ratio"));
    if (r >= 0)
        r = buf_printf(out, "KV bytes (%s)%*s%-15.0f%-15.0f%.3f\n", text(kv, "dtype", NULL), 10 - (int)strlen(text(kv, "dtype", NULL)), "",
                       number(kv, "model", NULL), number(kv, "dense", NULL), number(kv, "ratio", NULL));
    if (r >= 0 && number(report, "router_state_bytes", NULL) > 0)
        r = buf_printf(out, "router states         %.0f bytes a sequence\n", number(report, "router_state_bytes", NULL));
    if (r >= 0)
        r = buf_printf(out, "head, one row         %.2f MFLOPs, not in the lines above\n", number(f, "head", NULL) / 1e6);
    return r;
}

static int put_shape(const json_t *report, struct buf *out)
{
    const json_t *c = at(report, "config", NULL), *rope = at(report, "rope", NULL);
    int r =
        buf_printf(out, "%-22s%s\n%-22s%s, model_type %s%s\n", "model", text(report, "model", NULL), "family", text(report, "family", NULL),
                   text(report, "config", "model_type"), json_is_true(at(report, "has_weights", NULL)) ? "" : " (config alone)");
    if (r >= 0)
        r = buf_printf(out, "%-22s%g layers, hidden %g, ffn %g, heads %g/%g x %g, vocabulary %g%s\n", "shape",
                       number(c, "num_hidden_layers", NULL), number(c, "hidden_size", NULL), number(c, "intermediate_size", NULL),
                       number(c, "num_attention_heads", NULL), number(c, "num_key_value_heads", NULL), number(c, "head_dim", NULL),
                       number(c, "vocab_size", NULL), json_is_true(json_object_get(c, "tie_word_embeddings")) ? ", tied" : "");
    if (r >= 0 && number(c, "window", NULL) > 0)
        r = buf_printf(out, "%-22s%g tokens, not implemented: longer texts are refused\n", "window", number(c, "window", NULL));
    if (r >= 0)
        r = buf_printf(out, "%-22s%s, theta %g", "rope", text(rope, "type", NULL), number(rope, "theta", NULL));
    if (r >= 0 && strcmp(text(rope, "type", NULL), "default"))
        r = buf_printf(out, ", effective factor %g, original length %g, attention factor %g", number(rope, "effective_factor", NULL),
                       number(rope, "original_length", NULL), number(rope, "attention_factor", NULL));
    return r >= 0 ? buf_printf(out, "\n%-22s%g\n%-22s%s\n", "default max-model-len", number(report, "default_max_model_len", NULL),
                               "stored dtype", text(report, "stored_dtype", NULL))
                  : r;
}

int inspect_table(const json_t *report, struct buf *out)
{
    static const char *const rows[][2] = {{"total", "parameters"}, {"router", "  of routers"}, {"embedding", "  of the embedding"}};
    int r = put_shape(report, out);
    if (r >= 0)
        r = put_grouped(out, "tensors", json_integer_value(at(report, "tensors", NULL)));
    for (int i = 0; i < 3 && r >= 0; i++)
        r = put_grouped(out, rows[i][1], json_integer_value(at(report, "parameters", rows[i][0])));
    if (r >= 0)
        r = inspect_plan_table(at(report, "plan", NULL), out);
    return r >= 0 ? put_costs(report, out) : r;
}
