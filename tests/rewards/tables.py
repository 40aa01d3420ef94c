"""Tables of texts in files: a heading `# name`, then a text a line, in which ⏎ stands for a line break."""

from pathlib import Path


def tables(name):
    """Return the texts of a file of this folder by their heading."""
    found = {}
    for line in (Path(__file__).parent / name).read_text(encoding="utf-8").removesuffix("\n").split("\n"):
        if line.startswith("# "):
            texts = found.setdefault(line[2:], [])
        else:
            texts.append(line.replace("⏎", "\n"))
    return found
