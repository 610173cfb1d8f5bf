/* Clients that close, reset or half-close a TCP connection, and what the watcher makes of it. */
#include "server/http/watcher.h"
#include "tests/check.h"
#include "tests/unit/no_timed_waits.h"
#include "tests/unit/tcp_pair.h"
#include <semaphore.h>

static struct watcher *watcher;
static sem_t told;
static enum watch_state states[256]; /* in the order in which they were told */
static int n_told, n_read;

static void changed(void *user, enum watch_state state)
{
    states[n_told++] = state;
    sem_post(&told);
}

static void begin(int fd[2], struct watch *w, enum watch_fin fin)
{
    tcp_pair(fd);
    *w = (struct watch){.fd = fd[0], .fin = fin, .changed = changed};
    watcher_add(watcher, w);
}

static void expect(enum watch_state state)
{
    sem_wait(&told);
    CHECK_INT(states[n_read++], state);
}

static void finish(int fd[2], struct watch *w, enum watch_state state, bool client_open)
{
    CHECK_INT(watcher_remove(watcher, w), state);
    close(fd[0]);
    if (client_open)
        close(fd[1]);
    CHECK(sem_trywait(&told) < 0);
}

static void test_asked(void)
{
    struct watch w;
    int fd[2];
    char text[64] = "";
    begin(fd, &w, WATCH_FIN_ASK);
    close(fd[1]); /* closed altogether: half at first, and its reset tells the rest */
    expect(WATCH_HALF);
    expect(WATCH_GONE);
    finish(fd, &w, WATCH_GONE, false);
    begin(fd, &w, WATCH_FIN_ASK);
    shutdown(fd[1], SHUT_WR); /* half: it still reads, and got the question */
    expect(WATCH_HALF);
    CHECK(recv(fd[1], text, sizeof(text) - 1, 0) > 0);
    CHECK_STR(text, "HTTP/1.1 100 Continue\r\n\r\n");
    finish(fd, &w, WATCH_HALF, true);
    begin(fd, &w, WATCH_FIN_ASK); /* bytes on their way are question enough */
    CHECK_INT(send(fd[0], "x", 1, 0), 1);
    close(fd[1]);
    sem_wait(&told);
    if (states[n_read++] == WATCH_HALF) /* the reset may come before the end is seen */
        expect(WATCH_GONE);
    finish(fd, &w, WATCH_GONE, false);
}

static void test_others(void)
{
    struct watch w;
    int fd[2];
    begin(fd, &w, WATCH_FIN_GONE);
    shutdown(fd[1], SHUT_WR);
    expect(WATCH_GONE);
    finish(fd, &w, WATCH_GONE, true);
    begin(fd, &w, WATCH_FIN_HALF);
    close(fd[1]);
    expect(WATCH_HALF);
    CHECK_INT(send(fd[0], "x", 1, MSG_NOSIGNAL), 1); /* the caller writes */
    expect(WATCH_GONE);
    finish(fd, &w, WATCH_GONE, false);
    begin(fd, &w, WATCH_FIN_HALF);
    struct linger now = {1, 0};
    setsockopt(fd[1], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(fd[1]); /* a reset */
    expect(WATCH_GONE);
    finish(fd, &w, WATCH_GONE, false);
    begin(fd, &w, WATCH_FIN_HALF);
    CHECK_INT(send(fd[1], "more", 4, 0), 4); /* bytes of a next request are no event */
    finish(fd, &w, WATCH_HERE, true);
}

static void test_many(void)
{
    enum { N = 40 };
    struct watch w[N];
    int fd[N][2];
    for (int i = 0; i < N; i++)
        begin(fd[i], &w[i], WATCH_FIN_GONE);
    for (int i = 0; i < N; i += 2)
        close(fd[i][1]);
    for (int i = 0; i < N; i += 2)
        expect(WATCH_GONE);
    for (int i = N - 1; i >= 0; i--)
        finish(fd[i], &w[i], i % 2 ? WATCH_HERE : WATCH_GONE, i % 2);
}

static void test_give_up(void)
{
    struct watch w[2];
    int fd[2][2];
    begin(fd[0], &w[0], WATCH_FIN_HALF);
    watcher_give_up(watcher);
    expect(WATCH_GIVEN_UP);
    begin(fd[1], &w[1], WATCH_FIN_HALF); /* and whoever comes later */
    expect(WATCH_GIVEN_UP);
    for (int i = 0; i < 2; i++)
        finish(fd[i], &w[i], WATCH_GIVEN_UP, true);
}

int main(void)
{
    struct err err = {0};
    sem_init(&told, 0, 0);
    if (!CHECK_INT(watcher_open(&watcher, &err), 0))
        return check_result();
    test_asked();
    test_others();
    test_many();
    test_give_up();
    watcher_close(watcher);
    CHECK_INT(timed_waits, 0);
    return check_result();
}
