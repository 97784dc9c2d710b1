"""The `instant-avatar` command."""
