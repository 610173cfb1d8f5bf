/* What a token does in a layer. Route arrays on a device hold one such code (unsigned char) a row. */
#pragma once

enum decision {
    DECISION_SKIP = 0,   /* the layer leaves the token as it is */
    DECISION_LINEAR = 1, /* the layer runs, with the linear path in place of attention */
    DECISION_ATTEND = 2, /* the layer runs, and the token attends */
};
