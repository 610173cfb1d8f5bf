/* Every call that waits with a time limit is wrapped by the linker (tests/unit/meson.build) and counted here. */
#pragma once

extern int timed_waits;
