"""How a table's rows are read: by a format of ours with renamed columns, else by a small `read_row.py`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reasoning_ext import think
from reasoning_ext.data.format import find_format
from reasoning_ext.errors import UserError
from reasoning_ext.init.roles import MOST, Rows, alternatives, is_short, option_columns, share, values

FILE = "read_row.py"
# the columns of data sets that formats of ours are for, where these alone tell
KNOWN = {
    "open_r1": ("generations", "is_reasoning_complete"),
    "gpqa": ("Correct Answer", "Incorrect Answer 1"),
    "countdown": ("nums", "target"),
    "dapo_math": ("prompt", "reward_model"),
}
HEAD = '''"""How a row of {name} is read, named by the recipes' `dataset_format: ./read_row.py`.

Here {why}.
"""
{imports}'''
CODE = '''

def read_row(row: dict) -> dict | None:
    """Return the prompt of a row and what else the stages need of it; None would leave the row out."""
{before}    return {{
{fields}    }}
'''
# what stands behind `read_row`, then `whole_row`, where rows do not fit it or golds are written otherwise
WRAPPED = '''

def read_row(row: dict) -> dict | None:
    """Return what `whole_row` makes of a row; None, where it cannot read it, leaves it out."""
    try:
        made = whole_row(row)
    except (LookupError, TypeError, ValueError):
        return None
    if not made or not made["prompt"]:
        return None
{points}    return made
'''
POINTS = """    made["answer"] = (made["answer"] or "").replace(".", "").replace(",", ".")  # 1.234,5 becomes 1234.5
"""
ALTERNATIVES = """    row = row | {{"answer": row["answer"]["{name}"] or None}}  # of several any is right
"""
SKIPPED = """    if row["answer"] is None:
        return None
"""
OPTIONS = r"""    options = [str(option) for option in {options} if option is not None]
    listed = "\n".join(f"{{letter}}. {{option}}" for letter, option in zip("ABCDEFGHIJ", options))
"""
RUBRIC = r"""    rubric = row["rubric"] if isinstance(row["rubric"], str) else "\n".join(map(str, row["rubric"]))
"""
PROMPT, CONTEXT = 'row["prompt"]', r'"\n\n".join(filter(None, ({}row["context"], row["prompt"])))'


@dataclass(frozen=True)
class Reading:
    """How rows are read.

    Attributes:
        roles: `{role: column of the data}`.
        rename: the recipes' `rename_columns`.
        format: their `dataset_format`, None for plain columns.
        code: the text of `read_row.py`, "" without one.
        golds: what the columns tell of them: letters, code, rubric; "" where the answers themselves tell.
        options: the columns that hold an option each.
    """

    roles: dict[str, str]
    rename: dict[str, str] = field(default_factory=dict)
    format: str | None = None
    code: str = ""
    golds: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows of a file called `name`, with their columns and what each is for, see `roles`."""

    name: str
    rows: Rows
    columns: list[str]
    roles: dict[str, str]

    def has(self, role: str, mark: str) -> bool:
        """Tell whether a role's column has a text in nearly all rows."""
        return role in self.roles and share(self.rows, self.roles[role], mark) > MOST

    def plain(self, format: str | None = None, golds: str = "", **names: str) -> Reading:
        """Read rows by a format, each role under its own name, or that of `names`; other columns make way for these."""
        wanted = {column: names.get(role, role) for role, column in self.roles.items()}
        others = {c: f"other_{c}" for c in self.columns if c in wanted.values() and c not in wanted}
        rename = {column: new for column, new in (wanted | others).items() if column != new}
        return Reading(self.roles, rename, format, golds=golds)

    def own(self, why: str, golds: str = "", before: str = "", prompt: str = PROMPT, **fields: str) -> Reading:
        """Read rows by a file of the folder's own; `fields` are expressions of the renamed row."""
        asked = prompt.replace(PROMPT, self.context()) if "context" in self.roles else prompt
        lines = "".join(f'        "{name}": {value},\n' for name, value in ({"prompt": asked} | fields).items())
        imports = "\nfrom reasoning_ext import think\n" if "think." in lines else ""
        if 'row["answer"]' in lines:  # of rows without one nothing is made
            held = [value for value in values(self.rows, self.roles["answer"]) if alternatives(value) is not value]
            named = [name for name, value in held[0].items() if value is alternatives(held[0])] if held else []
            before = "".join(ALTERNATIVES.format(name=name) for name in named) + SKIPPED + before
        code = HEAD.format(name=self.name, why=why, imports=imports) + CODE.format(before=before, fields=lines)
        return Reading(self.roles, self.plain().rename, f"./{FILE}", code, golds)

    def context(self) -> str:
        """Return the expression of a problem with its context; UserError where that is no text and no list of texts."""
        column = self.roles["context"]
        first = next(iter(values(self.rows, column)), "")
        if isinstance(first, dict) or (isinstance(first, list) and not all(isinstance(part, str) for part in first)):
            hint = "write dataset_format: ./FILE.py with a read_row of your own"
            raise UserError(f"found the column {column} with {first!r:.60}, allowed: text, or a list of texts; {hint}")
        return CONTEXT.format("*" * isinstance(first, list))


def wrapped(reading: Reading, name: str, points: bool) -> Reading:
    """Read rows by a file of the folder's own that leaves out what does not fit; `points`: and mends decimal commas."""
    code = reading.code.replace("def read_row(", "def whole_row(")
    if not code:
        plugin = find_format(reading.format, Path())
        why = f"{plugin.name} reads the rows, and those that do not fit it are left out"
        imports = f"\nfrom {plugin.module} import {plugin.name} as whole_row\n"
        code = HEAD.format(name=name, why=why, imports=imports)
    return replace(reading, format=f"./{FILE}", code=code + WRAPPED.format(points=POINTS if points else ""))


def reading_of(table: Table) -> Reading:
    """Choose how a table is read."""
    roles, columns = table.roles, table.columns
    if known := next((format for format, names in KNOWN.items() if {*names} <= {*columns}), None):
        return Reading({}, {}, known)
    if "messages" in roles:
        return _chat(table)
    if "conversations" in roles:
        return table.plain("sharegpt")
    if options := option_columns(columns) or (["choices"] if "choices" in roles else []):
        return _choices(table, options)
    if "rubric" in roles:
        told = next((f"{{row['{role}'] or ''}}\\n\\n" for role in ("answer", "completion") if role in roles), "")
        answer = f'f"{told}What earns points:\\n{{rubric}}"'
        return table.own("a judge is given the row's own rubric as its reference", "rubric", RUBRIC, answer=answer)
    if "tests" in roles:
        context = table.own("its context stands before its task", "code", tests='row["tests"]')
        return context if "context" in roles else table.plain(golds="code")
    return _answered(table)


def _chat(table: Table) -> Reading:
    """Read conversations; the last message is trained on, or, where it is prose, what a judge compares with."""
    chats = [chat for chat in values(table.rows, table.roles["messages"]) if isinstance(chat, list)]
    last = [{"said": str(chat[-1])} for chat in chats]
    if "answer" in table.roles or any(share(last, "said", mark) for mark in (think.CLOSE, "'thinking'", "'reasoning")):
        return table.plain("messages")
    why, answer = "its last message is what a judge compares answers with", 'row["messages"][-1]["content"]'
    return table.own(why, prompt='row["messages"][:-1]', answer=answer)


def _choices(table: Table, options: list[str]) -> Reading:
    """Read multiple choice: as `mmlu` where options are a list and golds letters or places from 0, else by a file."""
    roles, lists = table.roles, options == ["choices"]
    asked = [row for row in table.rows if row.get(roles.get("answer", "")) is not None]
    golds = [str(row[roles["answer"]]).strip() for row in asked]
    mapping = lists and isinstance(values(table.rows, roles["choices"])[0], dict)
    texts = [_options(row, roles["choices"] if lists else options) for row in asked]
    numbers = all(map(str.isdecimal, golds)) and not any(  # a column of numbers can be nothing but places
        row[roles["answer"]] in told for row, told in zip(asked, texts, strict=True)
    )
    from_zero = numbers and "0" in golds
    numbers = numbers and all(int(g) < len(told) + (not from_zero) for g, told in zip(golds, texts, strict=True))
    if lists and not mapping and golds and (from_zero or all(len(gold) == 1 and gold.isupper() for gold in golds)):
        return table.plain("mmlu", "letters", prompt="question")
    held = 'row["choices"]["text"]' if mapping else 'row["choices"]' if lists else f"[row[name] for name in {options}]"
    place = f'"ABCDEFGHIJ"[int(row["answer"]){"" if from_zero else " - 1"}]'
    if mapping and "label" in values(table.rows, roles["choices"])[0]:  # ARC's are 1 to 4 in some rows
        numbers, place = True, '"ABCDEFGHIJ"[list(row["choices"]["label"]).index(row["answer"])]'
    answer = {"answer": place if numbers else 'row["answer"]'} if golds else {}
    before, prompt = OPTIONS.format(options=held), f'{PROMPT} + "\\n\\n" + listed'
    counted = (
        f"; its answers are places, counted from {0 if from_zero else 1}" if "int(" in answer.get("answer", "") else ""
    )
    why = f"its options are listed under the question{counted}"
    made = table.own(why, "letters" if golds else "", before, prompt, **answer, choices="options")
    return replace(made, options=() if lists else tuple(options))


def _options(row: dict[str, Any], options: str | list[str]) -> list[str]:
    """Return the texts of a row's options, in a column of lists or of `{text, label}`, or one in each of some columns."""
    held = [row[name] for name in options] if isinstance(options, list) else row[options] or []
    held = held.get("text", []) if isinstance(held, dict) else held
    return [str(option).strip() for option in held if option is not None]


def _answered(table: Table) -> Reading:
    """Read problems with answers, solutions or traces, as far as they have them."""
    roles, traced = table.roles, table.has("completion", think.CLOSE)
    if not {"thought", "context"} & roles.keys() and not traced:  # worked solutions
        if table.has("completion", "####") and "answer" not in roles:
            return table.plain("gsm8k", prompt="question", completion="answer")
        if table.has("completion", r"\boxed{"):
            return table.plain("math", prompt="problem", completion="solution")
    if traced and "answer" not in roles and table.has("completion", r"\boxed{"):
        gold = 'think.last_boxed(row["completion"])'
        return table.own("its gold is the last box of its trace", completion='row["completion"]', answer=gold)
    steps = [role for role in ("thought", "completion") if role in roles and not traced]
    if len(steps) == 1 and "answer" in roles and is_short(table.rows, roles["answer"]):
        whole = rf'think.join(row["{steps[0]}"], "The answer is \\boxed{{" + str(row["answer"]) + "}}.")'
        return table.own("its solution is the thought, its answer is boxed", completion=whole, answer='row["answer"]')
    prose = steps == ["completion"] and "answer" not in roles  # which a judge compares with
    if "context" in roles or any(isinstance(gold, dict) for gold in values(table.rows, roles.get("answer", ""))):
        golds = "completion" if prose else "answer"
        more = {
            name: f'row["{role}"]' for name, role in (("completion", "completion"), ("answer", golds)) if role in roles
        }
        why = "its context stands before its problem" if "context" in roles else "its answers are alternatives"
        return table.own(why, **more)
    return table.plain(thought="thinking", **({"completion": "answer"} if prose else {}))
