/* Crafted tokenizer.model files: every truncation of a small good one, and one lie at a time. */
#include "tests/check.h"
#include "tokenizer/spm.h"
#include "tokenizer/spm_check.h"
#include <math.h>
#include <stdlib.h>

/* A message under construction. */
struct message {
    unsigned char bytes[8192];
    size_t len;
};

static void put(struct message *m, const void *bytes, size_t len)
{
    memcpy(m->bytes + m->len, bytes, len);
    m->len += len;
}

static void put_varint(struct message *m, unsigned long long v)
{
    for (; v >= 0x80; v >>= 7)
        m->bytes[m->len++] = (unsigned char)(v | 0x80);
    m->bytes[m->len++] = (unsigned char)v;
}

static void put_field(struct message *m, unsigned number, const void *bytes, size_t len)
{
    put_varint(m, number << 3 | 2);
    put_varint(m, len);
    put(m, bytes, len);
}

static void put_piece(struct message *m, const char *text, size_t len, float score, int type)
{
    struct message p = {.len = 0};
    put_field(&p, 1, text, len);
    put_varint(&p, 2 << 3 | 5);
    put(&p, &score, 4);
    put_varint(&p, 3 << 3);
    put_varint(&p, (unsigned long long)type);
    put_field(m, 1, p.bytes, p.len);
}

static void put_trainer(struct message *m, int model_type, int byte_fallback)
{
    struct message t = {.len = 0};
    put_varint(&t, 3 << 3);
    put_varint(&t, (unsigned long long)model_type);
    put_varint(&t, 35 << 3);
    put_varint(&t, (unsigned long long)byte_fallback);
    put_field(m, 2, t.bytes, t.len);
}

static void put_charsmap(struct message *m, unsigned trie_bytes, size_t total)
{
    static unsigned char map[4096];
    struct message n = {.len = 0};
    memcpy(map, &trie_bytes, 4);
    put_field(&n, 2, map, total);
    put_field(m, 3, n.bytes, n.len);
}

static struct message good(void)
{
    struct message m = {.len = 0};
    put_piece(&m, "<unk>", 5, 0, SPM_UNKNOWN);
    put_piece(&m, "<s>", 3, 0, SPM_CONTROL);
    put_piece(&m, "a", 1, -1, SPM_NORMAL);
    put_piece(&m, "b", 1, -2, SPM_NORMAL);
    put_piece(&m, "ab", 2, 0, SPM_NORMAL);
    put_trainer(&m, SPM_BPE, 0);
    return m;
}

/* Checks it at the very end of a block of its own, so that a sanitizer sees any read past it. */
static int check(const struct message *m, size_t len, struct err *e)
{
    unsigned char *exact = malloc(len ? len : 1);
    struct buf out;
    struct spm_facts facts = {0};
    buf_init(&out, 1 << 20);
    memcpy(exact, m->bytes, len);
    int r = spm_check(exact, len, &out, &facts, e);
    struct spm *spm = NULL;
    bool checked = r >= 0;
    if (checked)
        r = spm_open(out.data, out.len, &spm, e); /* may still refuse, but must not fall over */
    if (r >= 0)
        CHECK_INT(spm_size(spm), facts.n_pieces);
    spm_close(spm);
    if (checked)
        spm_facts_done(&facts);
    free(exact);
    buf_done(&out);
    return r;
}

static void test_good(void)
{
    struct message m = good();
    struct err e = {0};
    if (!CHECK_INT(check(&m, m.len, &e), 0))
        fprintf(stderr, "%s\n", e.text);
    put_charsmap(&m, 1024, 2048);
    put_field(&m, 7, "ignored", 7);
    CHECK_INT(check(&m, m.len, &e), 0);
    int refused = 0;
    for (size_t len = 0; len < m.len; len++)
        refused += check(&m, len, &e) < 0;
    CHECK(refused > (int)m.len / 2);
}

static void test_lies(void)
{
    struct err e;
    char longer[600];
    memset(longer, 'x', sizeof(longer));
    const struct {
        const char *text;
        size_t len;
        float score;
        int type;
    } pieces[] = {
        {"", 0, 0, SPM_NORMAL},
        {"a\0b", 3, 0, SPM_NORMAL},
        {"\xff", 1, 0, SPM_NORMAL},
        {longer, 513, 0, SPM_NORMAL},
        {"z", 1, NAN, SPM_NORMAL},
        {"z", 1, INFINITY, SPM_NORMAL},
        {"z", 1, 0, 0},
        {"z", 1, 0, 7},
        {"z", 1, 0, SPM_UNKNOWN},
        {"<0x4g>", 6, 0, SPM_BYTE},
        {"<0x4>", 5, 0, SPM_BYTE},
        {"z", 1, 0, SPM_BYTE},
    };
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        struct message m = good();
        put_piece(&m, pieces[i].text, pieces[i].len, pieces[i].score, pieces[i].type);
        if (!CHECK_INT(check(&m, m.len, &e), ERR_CORRUPT))
            fprintf(stderr, "piece %zu\n", i);
    }
    struct message m = good();
    put_trainer(&m, 9, 0);
    CHECK_INT(check(&m, m.len, &e), ERR_CORRUPT);
    m = good();
    put_trainer(&m, SPM_BPE, 1); /* without byte pieces */
    CHECK_INT(check(&m, m.len, &e), ERR_CORRUPT);
    static const unsigned tries[] = {0, 3, 1023, 2044, 2048, 0xffffffffu};
    for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
        m = good();
        put_charsmap(&m, tries[i], 2048);
        CHECK_INT(check(&m, m.len, &e), ERR_CORRUPT);
    }
    m = good();
    put_varint(&m, 1 << 3 | 2);
    put_varint(&m, ~0ull); /* a length past everything */
    CHECK_INT(check(&m, m.len, &e), ERR_CORRUPT);
}

/* Ids and pieces that trainer_spec names. */
static void test_named(void)
{
    static const struct {
        const char *text;
        size_t len;
        int code;
    } names[] = {{"<s>", 3, 0}, {"", 0, 0}, {"a\0b", 3, ERR_CORRUPT}, {"\xff", 1, ERR_CORRUPT}};
    struct err e;
    for (unsigned number = 44; number <= 48; number++)
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
            struct message m = good(), t = {.len = 0};
            put_field(&t, number, names[i].text, names[i].len);
            put_field(&m, 2, t.bytes, t.len);
            bool read = number >= 45 && number <= 47;
            CHECK_INT(check(&m, m.len, &e), read ? names[i].code : 0);
        }
    for (unsigned number = 40; number <= 47; number++) { /* of another wire type: passed over */
        struct message m = good(), t = {.len = 0};
        put_varint(&t, number << 3);
        put_varint(&t, 1);
        put_field(&t, 41, "x", 1);
        put_field(&t, 3, "x", 1);
        put_field(&t, 35, "x", 1);
        put_field(&m, 2, t.bytes, t.len);
        CHECK_INT(check(&m, m.len, &e), 0);
    }
}

int main(void)
{
    test_good();
    test_named();
    test_lies();
    return check_result();
}
