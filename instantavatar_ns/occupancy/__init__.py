"""Occupancy: occupied cells of the canonical body, skinned into the pose-union grid and a grid per pose."""
