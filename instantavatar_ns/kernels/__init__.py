"""Triton kernels, without the tensors they are launched on: each has its launcher, and its twin in torch, in the folder
whose concept it serves."""
