/* The CPU backend as a slow device: what fetch copies reaches the host only when it is waited for, and until then lies there as rubbish. Its ops
 * are those of late_ops.h. */
#pragma once
#include <stdbool.h>

struct backend;

const struct backend *late_backend(void); /* for engine_open_on; NULL: there is no CPU backend */

/* While it is held nothing arrives: who waits for it sleeps. */
void late_hold(bool hold);

/* The n-th upload, fetch, mark or wait from now on fails (n >= 1), and every one after it; 0 ends that. */
void late_fail_at(int n);
/* The same where only calls on one of the devices count and fail. */
void late_fail_device_at(int device_index, int n);
