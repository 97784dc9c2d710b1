"""From rays to pixels."""
