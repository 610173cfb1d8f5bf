/* Random requests for fake_model.h, the same for the same seed: sequences that share prefixes, scored and continued in every way. */
#pragma once
#include "tests/unit/expect.h"

#define TRAFFIC_LEN 36 /* tokens of a prompt at most */
#define TRAFFIC_NEW 12 /* generated tokens at most */
#define TRAFFIC_EOS 3

void traffic_seed(uint64_t seed); /* begins anew: random numbers and sequences */
int traffic_random(int n);        /* 0 .. n-1 */
/* From now on, until traffic_seed: generations of any length, nearly all of the best tokens; else half of the requests are generations, of up to 5 tokens. */
void traffic_generates(void);
/* A request on a prefix of one of the sequences, which live on. `w` is borrowed; it may stop its generation. */
struct eval_request traffic_request(struct expect_watch *w);
