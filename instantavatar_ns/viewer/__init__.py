"""Additions to nerfstudio's viewer."""
