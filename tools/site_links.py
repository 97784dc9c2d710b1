"""Hook of mkdocs: pages link to files outside docs/, as readers on GitHub expect; on the site these lead to GitHub."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\]\(\.\./([^)\s]*)\)")


def on_page_markdown(markdown: str, *, config: Any, **_: Any) -> str:
    """Return a page's text with links that leave docs/ made absolute.

    Args:
        markdown: The page.
        config: mkdocs' configuration, whose `repo_url` is the repository.
    """
    return _OUTSIDE.sub(rf"]({config['repo_url'].rstrip('/')}/blob/main/\1)", markdown)
