/* Frequencies against tests/golden/configs/rope-tables.json, at real head sizes. */
#include "common/json.h"
#include "engine/checkpoint/rope_config.h"
#include "engine/model/rope.h"
#include "tests/check.h"
#include <math.h>

static void check_table(size_t i, const json_t *t)
{
    struct rope_config c;
    struct err e = {0};
    int hd = (int)json_integer_value(json_object_get(t, "head_dim"));
    int max_pos = (int)json_integer_value(json_object_get(t, "max_position_embeddings"));
    const struct rope_rules rules = {.max_positions = max_pos, .theta = 10000, .ratio = true};
    if (!CHECK_INT(rope_config_read(t, NULL, &rules, NULL, &c, &e), 0)) {
        fprintf(stderr, "  table %zu: %s\n", i, e.text);
        return;
    }
    double m = json_number_value(json_object_get(t, "attention_factor"));
    if (!CHECK(fabs(c.attention_factor - m) <= 1e-6 * m))
        fprintf(stderr, "  table %zu: attention factor %g, not %g\n", i, c.attention_factor, m);
    float f[MODEL_MAX_HEAD_DIM / 2];
    rope_frequencies(&c, hd, f);
    const json_t *want = json_object_get(t, "inv_freq");
    CHECK_INT(json_array_size(want), hd / 2);
    for (int j = 0; j < hd / 2; j++) {
        double w = json_number_value(json_array_get(want, (size_t)j));
        if (!CHECK(fabs(f[j] - w) <= 4e-7 * w))
            fprintf(stderr, "  table %zu: frequency %d is %.9g, not %.9g\n", i, j, f[j], w);
    }
}

/* Heads of 6 in tables of 4 columns: the fourth turns nothing. */
static void test_cos_sin(void)
{
    struct rope_config c = {.type = ROPE_DEFAULT, .theta = 10000, .factor = 1, .attention_factor = 1.5};
    float f[4], cs[3 * 4], sn[3 * 4];
    for (int hd = 6; hd <= 8; hd += 2) {
        rope_frequencies(&c, hd, f);
        rope_tables(&c, hd, 4, 3, cs, sn);
        for (int t = 0; t < 3; t++)
            for (int j = 0; j < 4; j++) {
                bool turns = j < hd / 2;
                CHECK(fabs(cs[t * 4 + j] - (turns ? 1.5 * cos(t * (double)f[j]) : 1)) < 1e-6);
                CHECK(fabs(sn[t * 4 + j] - (turns ? 1.5 * sin(t * (double)f[j]) : 0)) < 1e-6);
            }
    }
}

int main(void)
{
    json_t *tables = NULL;
    struct err e = {0};
    if (!CHECK_INT(json_parse_file(GOLDEN_DIR "/configs/rope-tables.json", 1 << 20, &tables, &e), 0))
        return check_result();
    CHECK(json_array_size(tables) >= 8);
    for (size_t i = 0; i < json_array_size(tables); i++)
        check_table(i, json_array_get(tables, i));
    json_decref(tables);
    test_cos_sin();
    return check_result();
}
