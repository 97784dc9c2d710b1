"""The demo person: a generated subject to try everything on, without any download."""
