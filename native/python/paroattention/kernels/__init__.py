"""Attention and what looks at it: the kernels of a CPU and of a GPU, plans on a device, and the
same in plain torch."""
