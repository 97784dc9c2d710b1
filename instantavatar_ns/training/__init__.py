"""Training steps, their kernels, checkpoints and processes: what the trainer and the pipeline are made of."""
