"""The kernels: each writes one function of machine code for one shape."""
