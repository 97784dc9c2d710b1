"""Body models in SMPL's format, their poses, and the transforms that carry points from one pose to another."""
