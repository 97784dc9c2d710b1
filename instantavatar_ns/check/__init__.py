"""Compares the posed body with the masks, before anything is trained or measured on them."""
