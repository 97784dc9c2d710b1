"""Frames on disk to rays on the training device."""
