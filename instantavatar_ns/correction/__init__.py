"""Corrections of given poses: by silhouettes before training, by images once there is an avatar."""
