/* A group of sequences that is queued, answered and cancelled as one. */
#pragma once
#include "engine/schedule/sequence.h"
#include <pthread.h>
#include <stdatomic.h>

struct queue;

struct engine_ticket {
    struct queue *queue;
    struct sequence *seqs; /* [n] */
    int n;
    int remaining; /* sequences that are not done; under queue->lock */
    atomic_bool cancelled;
    pthread_cond_t done; /* with queue->lock */
};
