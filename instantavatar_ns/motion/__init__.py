"""Motions: SMPL poses over time, from the files people keep them in to the place where the person stands."""
