"""Avatars of many people in one command: their jobs, the workers that share the GPUs, and a summary."""
