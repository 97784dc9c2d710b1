"""Hook of mkdocs: pages link to files outside docs/, as readers on GitHub expect; on the site these lead to GitHub."""

from __future__ import annotations

import posixpath
import re
from typing import Any

_UPWARDS = re.compile(r"\]\((\.\./[^)\s]*)\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Return a page's text with links that leave docs/ made absolute.

    Args:
        markdown: The page.
        page: mkdocs' page, which knows its file.
        config: mkdocs' configuration, whose `repo_url` is the repository.
    """
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def on_github(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[1]))
        inside = target.startswith("docs/")
        return link[0] if inside else f"]({config['repo_url'].rstrip('/')}/blob/main/{target})"

    return _UPWARDS.sub(on_github, markdown)
