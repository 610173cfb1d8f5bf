/* Who asks for gzip, and that what is compressed reads back as it was: at once, and in pieces of every size. */
#include "server/http/gzip.h"
#include "tests/check.h"
#include <stdlib.h>
#include <zlib.h>

static void test_accepted(void)
{
    static const struct {
        const char *accept;
        bool want;
    } cases[] = {
        {NULL, false},
        {"", false},
        {"gzip", true},
        {"gzip, deflate, br", true},
        {"deflate , GZip", true},
        {"x-gzip", true},
        {"deflate", false},
        {"gzipped", false},
        {"identity", false},
        {"*", true},
        {"*;q=0", false},
        {"*;q=0.0, gzip;q=0.001", true},
        {"gzip;q=0", false},
        {"gzip; q=0.000, *", false},
        {"gzip;q=0.5, identity; q=1", true},
        {"gzip;Q=1", true},
        {",,;q=1,,gzip", true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (!CHECK_INT(gzip_accepted(cases[i].accept), cases[i].want))
            fprintf(stderr, "Accept-Encoding: %s\n", cases[i].accept ? cases[i].accept : "none");
}

/* Text of n bytes that shrinks. */
static void fill(struct buf *b, size_t n)
{
    buf_init(b, n + 64);
    while (b->len < n)
        buf_printf(b, "%zu,", b->len * 7919 % 1000);
    b->len = n;
    b->data[n] = 0;
}

static void check_reads_back(const struct buf *packed, const struct buf *want)
{
    char *back = malloc(want->len + 1);
    z_stream z = {.next_in = (unsigned char *)packed->data,
                  .avail_in = (unsigned)packed->len,
                  .next_out = (unsigned char *)back,
                  .avail_out = (unsigned)want->len + 1};
    CHECK_INT(inflateInit2(&z, 15 + 16), Z_OK);
    CHECK_INT(inflate(&z, Z_FINISH), Z_STREAM_END);
    CHECK_INT(z.total_out, want->len);
    CHECK(!memcmp(back, want->data, want->len) && z.avail_in == 0);
    inflateEnd(&z);
    free(back);
}

static void test_body(void)
{
    static const size_t sizes[] = {200, GZIP_LEAST_BYTES, 16384, 300000};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct budget budget;
        struct charge charge = {.budget = &budget};
        struct buf b, want;
        budget_init(&budget, 1 << 20);
        fill(&b, sizes[i]);
        fill(&want, sizes[i]);
        CHECK(gzip_body(&b, &charge));
        CHECK(b.len < want.len);
        check_reads_back(&b, &want);
        CHECK_INT(charge.taken, 0);
        buf_done(&b);
        buf_done(&want);
    }
}

/* What does not shrink, or has no memory, stays. */
static void test_body_that_stays(void)
{
    struct budget budget;
    struct charge charge = {.budget = &budget};
    struct buf b;
    budget_init(&budget, 1 << 20);
    buf_init(&b, 8192);
    for (unsigned i = 0, x = 1; i < 4096; i++, x = x * 1103515245u + 12345u)
        buf_append(&b, &(char){(char)(x >> 16)}, 1);
    CHECK(!gzip_body(&b, &charge));
    CHECK_INT(b.len, 4096);
    buf_done(&b);
    fill(&b, 4096);
    budget_init(&budget, 4096);
    CHECK(!gzip_body(&b, &charge));
    CHECK(b.len == 4096 && charge.taken == 0);
    buf_done(&b);
}

struct source {
    struct buf all;
    size_t at, piece;
    int done;
    bool breaks;
};

static int source_next(void *user, struct buf *out)
{
    struct source *s = user;
    size_t n = s->all.len - s->at < s->piece ? s->all.len - s->at : s->piece;
    buf_append(out, s->all.data + s->at, n);
    s->at += n;
    return s->at < s->all.len ? 1 : s->breaks ? -1 : 0;
}

static void source_done(void *user)
{
    ((struct source *)user)->done++;
}

static void test_stream(size_t len, size_t begun_len, size_t piece, bool breaks)
{
    struct charge charge = {0};
    struct source s = {.piece = piece, .breaks = breaks};
    struct http_stream stream = {source_next, source_done, &s};
    struct buf begun, got;
    int r;
    fill(&s.all, len);
    buf_init(&begun, 1 << 20);
    buf_init(&got, 1 << 24);
    buf_append(&begun, s.all.data, s.at = begun_len);
    CHECK(gzip_stream(&stream, &begun, &charge));
    CHECK_INT(begun.len, 0);
    do {
        size_t before = got.len;
        r = stream.next(stream.user, &begun);
        buf_append(&got, begun.data, begun.len);
        CHECK(r <= 0 || got.len > before);
        buf_clear(&begun);
    } while (r > 0);
    stream.done(stream.user);
    CHECK_INT(r, breaks ? -1 : 0);
    if (!breaks)
        check_reads_back(&got, &s.all);
    CHECK(s.done == 1 && charge.taken == 0);
    buf_done(&s.all);
    buf_done(&begun);
    buf_done(&got);
}

int main(void)
{
    test_accepted();
    test_body();
    test_body_that_stays();
    test_stream(1000000, 300000, 65536, false);
    test_stream(1000000, 0, 100000, false);
    test_stream(5000, 1, 1, false);
    test_stream(300000, 1000, 4096, true);
    return check_result();
}
