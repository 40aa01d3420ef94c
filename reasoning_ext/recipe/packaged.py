"""The recipes and examples that came with the package, for those who have no checkout."""

from importlib.resources import files
from pathlib import Path


def packaged(name: str) -> Path:
    """Return where a packaged folder or file stands, `recipes` or `recipes/qwen3_4b` for example."""
    home, _, rest = name.partition("/")
    return Path(str(files(f"reasoning_ext.{home}").joinpath(rest)))


def headline(file: Path) -> str:
    """Return what a recipe's first line says of it."""
    return file.read_text(encoding="utf-8").splitlines()[0].removeprefix("#").strip()
