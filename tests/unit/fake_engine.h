/* A double of engine/engine.h for tests of the server: pseudo logprobs from the ids alone, and failures on demand. The request's tokens
 * are answered at once, on the caller's thread; a generated token is (last + 1) modulo the vocabulary, EOS ends. */
#pragma once
#include "engine/engine.h"

#define FAKE_VOCAB 64
#define FAKE_LAYERS 3
#define FAKE_LEN 32
#define FAKE_BOS 1
#define FAKE_EOS 2

struct fake_engine_plan {
    int submit_code;  /* engine_submit fails with it */
    int busy_at;      /* the submission of this number, from 1 on, fails with ERR_BUSY; 0: none */
    int request_code; /* the last request of every ticket fails with it */
    int health_code;
    bool
        held; /* a ticket's tokens come by fake_engine_step, from a thread that stands for the worker; else all before engine_submit returns */
};
extern struct fake_engine_plan fake_engine_plan;
extern const struct engine_info fake_engine_info;

/* A server in front of it. */
#define FAKE_SERVER(settings_of_it) \
    {.settings = (settings_of_it),  \
     .model_name = "double",        \
     .info = &fake_engine_info,     \
     .loaded = true,                \
     .bos = FAKE_BOS,               \
     .eos = FAKE_EOS,               \
     .noted_lock = PTHREAD_MUTEX_INITIALIZER}

/* Waits for a ticket to be submitted while the plan says held. */
struct engine_ticket *fake_engine_next(void);
/* One more token of each sequence that has not ended. False: all have. */
bool fake_engine_step(struct engine_ticket *t);
/* Waits until engine_tokens has told of every token so far. */
void fake_engine_seen(struct engine_ticket *t);

float fake_logprob(int32_t before, int32_t id); /* of id after `before` */
