"""The autograd graph: what losses reach, which parameters are shared, how gradients are combined."""
