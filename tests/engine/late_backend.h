/* The CPU backend as a slow device: what fetch copies reaches the host only when it is waited for, and until then lies there as rubbish. Linking
 * late_backend.c with -Wl,--wrap=backend_find puts it in the place of the CPU backend; others are left alone. */
#pragma once

/* The n-th upload, fetch, mark or wait from now on fails (n >= 1), and every one after it; 0 ends that. */
void late_fail_at(int n);
