"""A hook of mkdocs: links that lead out of docs/, to recipes or code, work on the site as they do on the forge.

In the Markdown such a link is relative (`../recipes/tiny`), so that it can be followed on the forge and in an editor. On the
site it leads to the repository, `repo_url` in mkdocs.yml; where there is none, its text alone stays. A file that does not exist
is a warning, which ends `mkdocs build --strict`.
"""

import logging
import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(#[^)\s]*)?\)")
log = logging.getLogger("mkdocs.hooks.links")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Return a page's Markdown with its links out of docs/ led to the repository."""
    root = Path(config.config_file_path).parent
    folder = Path(page.file.abs_src_path).parent

    def led(link: re.Match) -> str:
        text, path, anchor = link.groups()
        target = (folder / path).resolve()
        if target.is_relative_to(config.docs_dir):
            return link.group()
        if not target.exists():
            log.warning("%s links to %s, which does not exist", page.file.src_uri, path)
        place = target.relative_to(root).as_posix()
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{place}{anchor or ''})" if config.repo_url else text

    return LINK.sub(led, markdown)
