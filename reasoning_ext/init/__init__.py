"""`reasoning-ext init`: from a table of questions and answers, or a name of the hub, to a folder of recipes that run.

It looks at the data, chooses stages, rewards, model and lengths, and edits the packaged recipes of the card's size
accordingly, with a comment beside each choice. Nothing is trained, and nothing is overwritten.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from reasoning_ext.errors import UserError
from reasoning_ext.recipe.packaged import headline, packaged
from reasoning_ext.shown import print

if TYPE_CHECKING:
    from reasoning_ext.init.look import Seen

HOMES = ("recipes", "examples")
JUDGE = "write the model and the base_url of your judge into reward_funcs of each recipe"
CODE = "what the model writes runs in a sandbox; see docs/rewards.md, What running a model's code means"


def init(name: str, card: str | None, model: str | None, output: Path | None) -> None:
    """Write a folder of recipes for a data set, or copy a packaged folder; print what was seen and the next command.

    Raises:
        UserError: the data cannot be read, the card is no size, or the folder is there already; nothing is written.
    """
    if name.split("/")[0] in HOMES and "/" in name and (not Path(name).exists() or packaged(name).is_dir()):
        folder, found = output or Path(*Path(name).parts), _packaged(name)
        _refuse_existing(folder)
        shutil.copytree(found, folder, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        print(f"copied: {name} to {folder}\nnext: reasoning-ext check {folder}")
        return
    folder = output or Path("recipes") / _slug(Path(name).resolve().name.split(".")[0])
    _write(name, card, model, folder)


def listed() -> Iterator[str]:
    """Yield a line for each packaged folder: what `init` copies, and what its first file says of itself."""
    from reasoning_ext.recipe.load import expand

    for home in HOMES:
        for folder in sorted(path for path in packaged(home).iterdir() if path.is_dir() and list(path.glob("*.yaml"))):
            recipes = expand(folder)
            place = f"{home}/{folder.name}"
            yield f"{place:<28} {len(recipes)} recipes; {recipes[0].name}: {headline(recipes[0])}"


def _slug(name: str) -> str:
    """Return a name that needs no quotes, in YAML or a shell."""
    return re.sub(r"[^\w.-]+", "_", name)


def _packaged(name: str) -> Path:
    if ".." in Path(name).parts or not (found := packaged(name.rstrip("/"))).is_dir():
        raise UserError(f"init: found {name}, allowed: a packaged folder, as reasoning-ext init --list has them")
    return found


def _refuse_existing(folder: Path) -> None:
    if folder.exists():
        allowed = "a new folder; nothing is overwritten"
        raise UserError(f"--output: found {folder}, which is there already, allowed: {allowed}")


def _write(name: str, card_size: str | None, model: str | None, folder: Path) -> None:
    from reasoning_ext.check.memory.check import find_card, parse_card
    from reasoning_ext.init import choose
    from reasoning_ext.init.look import from_here, look
    from reasoning_ext.init.reading import FILE
    from reasoning_ext.init.write import write
    from reasoning_ext.recipe.yaml_reading import read_yaml

    card = find_card() if card_size is None else parse_card(card_size, "--card")
    _refuse_existing(folder)
    home = packaged(f"recipes/{choose.folder_for(card)}")
    sources = {stage: read_yaml(home / f"{file}.yaml")[0] for stage, file in choose.PACKAGED.items()}
    model = from_here(model) if model and Path(model).expanduser().exists() else model
    seen = look(name, model or sources["sft"]["model_name_or_path"])
    stages = choose.stages(choose.Wanted(seen, card, model, f"runs/{_slug(folder.name)}"), sources)
    folder.mkdir(parents=True)
    if seen.reading.code:
        (folder / FILE).write_text(seen.reading.code, encoding="utf-8")
    reports = write(stages, folder, f"reasoning-ext run {shlex.quote(str(folder))}", card, seen.problems)
    where = f"for {card.name}" if card else "no card was found or named: on the CPU"
    for line in _said(seen, choose.path_of(seen)):
        print(line)
    print(f"  model: {model or sources['sft']['model_name_or_path']}, {where}")
    for problem in (report.short() for report in reports if report.hopeless):
        print(f"  warning: {problem}")
    print(f"written: {folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")
    print(f"next: reasoning-ext check {folder}")


def _said(seen: Seen, path: list[str]) -> Iterator[str]:
    """Say in few lines what was seen and what follows from it."""
    from reasoning_ext.init.choose import JUDGES, held_out

    yield f"{seen.name}: {seen.rows or 'many'} rows, columns {', '.join(seen.columns)}"
    read = [f"{role} from {column}" for role, column in seen.reading.roles.items()]
    taken = {*seen.reading.roles.values(), *seen.reading.options}
    unused = [name for name in seen.columns if read and name not in taken]
    left = f"; not used: {', '.join(unused)}" if unused else ""
    yield f"  read as: {', '.join(read) or seen.reading.format}{left}"
    if seen.left_out:
        yield f"  left out: {seen.left_out}"
    judge = JUDGES[seen.golds][1] if seen.golds in JUDGES else "what completions agree on"
    yield f"  golds: {seen.golds} -> {judge}{', their decimal commas read as points' if seen.points else ''}"
    yield f"  traces: {'yes' if seen.traces else 'none'} -> {', '.join(path)}"
    unit = "tokens" if seen.counted else "tokens, at 2.5 characters each: the tokenizer is not here yet"
    yield f"  lengths: problems up to {seen.problems}, with their completions up to {seen.longest} {unit}"
    part = f"{held_out(seen.rows):g} of the rows, by a hash of the problem"
    part = f"the split {seen.test_split}" if seen.test_split else part
    part += f"; {seen.repeated} rows repeat a problem, and are left out of all but SFT" if seen.repeated else ""
    yield f"  held out: {part}"
    if edit := {"code": CODE, "rubric": JUDGE, "prose": JUDGE}.get(seen.golds):
        yield f"  before you run: {edit}"
    if seen.rows and seen.rows < 200 and not seen.test_split:
        held = round(seen.rows * held_out(seen.rows))
        yield f"  few rows: what {held} held-out problems tell is within tens of points"
