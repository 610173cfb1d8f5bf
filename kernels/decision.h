/* What a token does in a layer. Route arrays hold these codes, one byte a row. */
#pragma once

enum decision {
    DECISION_SKIP = 0,   /* the layer leaves it as it is */
    DECISION_LINEAR = 1, /* the linear path, then the MLP */
    DECISION_ATTEND = 2  /* attention, then the MLP */
};
