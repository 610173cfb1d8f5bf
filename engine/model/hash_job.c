#include "engine/model/hash_job.h"
#include "engine/checkpoint/load_progress.h"
#include "engine/checkpoint/model_hash.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { NICE = 10 };

struct hash_job {
    pthread_t thread;
    bool threaded;
    atomic_bool stop;
    char *dir, *more; /* more: may be NULL */
    struct log *log;
    struct load_progress progress;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under the lock */
    struct safetensors *files;
    int readers; /* of the files: the thread, and who called hash_job_start */
    int r;       /* 0: not done; 1, or a code */
    char hex[65];
    struct err err;
};

void hash_job_release(struct hash_job *j)
{
    pthread_mutex_lock(&j->lock);
    if (!--j->readers) {
        safetensors_close(j->files);
        j->files = NULL;
    }
    pthread_mutex_unlock(&j->lock);
}

static void run(struct hash_job *j)
{
    const struct model_hash_source of = {j->dir, j->files, j->more};
    char hex[65] = "";
    struct err err = {0};
    int r = model_hash(&of, &j->stop, &j->progress, hex, &err);
    if (r >= 0)
        r = safetensors_check(j->files, &err);
    if (r < 0 && r != ERR_CANCELLED)
        log_error(j->log, "the model has no hash: %s", err.text);
    pthread_mutex_lock(&j->lock);
    memcpy(j->hex, hex, sizeof(hex));
    j->err = err;
    j->r = r < 0 ? r : 1;
    pthread_cond_broadcast(&j->changed);
    pthread_mutex_unlock(&j->lock);
    hash_job_release(j);
}

static void *thread_main(void *arg)
{
    setpriority(PRIO_PROCESS, (id_t)gettid(), NICE); /* of this thread alone */
    run(arg);
    return NULL;
}

int hash_job_start(const char *dir, struct safetensors *files, const char *more, struct log *log, struct hash_job **ret, struct err *err)
{
    struct hash_job *j = calloc(1, sizeof(*j));
    char *dir_copy = strdup(dir), *more_copy = more ? strdup(more) : NULL;
    if (!j || !dir_copy || (more && !more_copy)) {
        free(j);
        free(dir_copy);
        free(more_copy);
        return err_set(err, ERR_NOMEM, "no memory for the model's hash");
    }
    size_t bytes = safetensors_bytes(files);
    j->dir = dir_copy;
    j->more = more_copy;
    j->log = log;
    j->progress = (struct load_progress){.log = log, .what = "weights hashed", .bytes = bytes, .total = bytes};
    j->files = files;
    j->readers = 2;
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->changed, NULL);
    j->threaded = !pthread_create(&j->thread, NULL, thread_main, j);
    if (!j->threaded)
        run(j);
    *ret = j;
    return 0;
}

int hash_job_result(struct hash_job *j, bool wait, const char **ret_hex, struct err *err)
{
    pthread_mutex_lock(&j->lock);
    while (wait && !j->r)
        pthread_cond_wait(&j->changed, &j->lock);
    int r = j->r;
    if (r < 0 && err)
        *err = j->err;
    if (r > 0)
        *ret_hex = j->hex;
    pthread_mutex_unlock(&j->lock);
    return r;
}

void hash_job_free(struct hash_job *j)
{
    if (!j)
        return;
    atomic_store(&j->stop, true);
    if (j->threaded)
        pthread_join(j->thread, NULL);
    safetensors_close(j->files); /* of a caller that did not release them */
    pthread_mutex_destroy(&j->lock);
    pthread_cond_destroy(&j->changed);
    free(j->dir);
    free(j->more);
    free(j);
}
