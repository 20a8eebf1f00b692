"""The autograd graph: what losses reach, what is shared, how gradients are combined."""
