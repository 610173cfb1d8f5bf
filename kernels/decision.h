/* What a token does in a layer: the code of a decision, wherever one is kept or told. Two bits hold it; the high bit says "attends". */
#pragma once

enum decision {
    DECISION_SKIP = 0,   /* the layer is not executed, x stays */
    DECISION_LINEAR = 1, /* the linear path, then the MLP */
    DECISION_ATTEND = 2, /* attention, then the MLP */
};
