"""The canonical radiance field: hash encoding and two small networks (InstantAvatar section 3.1)."""
