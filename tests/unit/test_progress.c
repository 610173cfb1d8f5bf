/* What a waiting request is woken by, and in which order of importance. */
#include "server/api/progress.h"
#include "tests/check.h"
#include "tests/unit/no_timed_waits.h"
#include <semaphore.h>

static void test_events(void)
{
    struct progress p;
    progress_init(&p, 2);
    progress_token(&p);
    progress_token(&p);
    CHECK_INT(progress_wait(&p), PROGRESS_TOKENS); /* two tokens wake once */
    CHECK(!p.news);
    progress_client(&p, WATCH_HALF);
    progress_token(&p);
    CHECK_INT(progress_wait(&p), PROGRESS_HALF);
    CHECK_INT(progress_wait(&p), PROGRESS_TOKENS);
    progress_end(&p);
    progress_token(&p);
    progress_client(&p, WATCH_GONE);
    CHECK_INT(progress_wait(&p), PROGRESS_GONE);
    progress_client(&p, WATCH_GIVEN_UP);
    CHECK_INT(progress_wait(&p), PROGRESS_GONE);
    CHECK_INT(p.client, WATCH_GIVEN_UP);
    progress_end(&p);
    CHECK_INT(progress_wait(&p), PROGRESS_FINISHED);
    progress_done(&p);
}

struct sleeper {
    struct progress p;
    sem_t told;
    enum progress_event event;
};

static void *sleep_through(void *user)
{
    struct sleeper *s = user;
    do {
        s->event = progress_wait(&s->p);
        sem_post(&s->told);
    } while (s->event != PROGRESS_FINISHED);
    return NULL;
}

/* A thread that sleeps is woken by each kind; otherwise this hangs. */
static void test_wakes(void)
{
    struct sleeper s;
    pthread_t thread;
    progress_init(&s.p, 1);
    sem_init(&s.told, 0, 0);
    CHECK_INT(pthread_create(&thread, NULL, sleep_through, &s), 0);
    for (int i = 0; i < 100; i++) {
        progress_token(&s.p);
        sem_wait(&s.told);
        CHECK_INT(s.event, PROGRESS_TOKENS);
    }
    progress_client(&s.p, WATCH_HALF);
    sem_wait(&s.told);
    CHECK_INT(s.event, PROGRESS_HALF);
    progress_end(&s.p);
    sem_wait(&s.told);
    CHECK_INT(s.event, PROGRESS_FINISHED);
    pthread_join(thread, NULL);
    sem_destroy(&s.told);
    progress_done(&s.p);
    CHECK_INT(timed_waits, 0);
}

int main(void)
{
    test_events();
    test_wakes();
    return check_result();
}
