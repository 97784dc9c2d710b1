"""Small tools without a room of their own: errors, files, linear algebra, CUDA graphs, progress."""
