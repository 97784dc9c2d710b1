"""Options that `--help` leaves out, so that those which people set are found."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, TypeVar

from tyro.conf import Suppress

T = TypeVar("T")

# tyro takes a suppressed option off the command line as well as out of the help, so it is suppressed for the help only.
if TYPE_CHECKING or not {"-h", "--help"} & set(sys.argv):
    Advanced = Annotated[T, "left out of --help"]
    """Type of an option that can be given, and stands in config.yml, but not in the help."""
else:
    Advanced = Suppress
