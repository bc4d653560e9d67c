// The registered losses, in order. A new loss is its struct in losses.h and one line here.
// NAG_ELEMENTWISE_LOSS: `eval` on one margin. NAG_ROW_LOSS: couples a row's columns (only softmax).
NAG_ELEMENTWISE_LOSS(Squared, "L1")
NAG_ELEMENTWISE_LOSS(Logistic, "L2")
NAG_ROW_LOSS(Softmax, "L3")
NAG_ELEMENTWISE_LOSS(Huber, "L4")
NAG_ELEMENTWISE_LOSS(Poisson, "L5")
NAG_ELEMENTWISE_LOSS(SquaredHinge, "L6")
