"""Triton kernels: nothing but functions of `triton.jit`, launched from the folders that own their concepts."""
