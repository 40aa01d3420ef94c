"""How a table's rows are read: a format of ours with renamed columns, or a small `read_row.py` where that does not do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from reasoning_ext import think
from reasoning_ext.init.roles import MOST, Rows, is_short, option_columns, share, values

FILE = "read_row.py"
# the columns of data sets that formats of ours are for, where these alone tell
KNOWN = {
    "open_r1": ("generations", "is_reasoning_complete"), "gpqa": ("Correct Answer", "Incorrect Answer 1"),
    "countdown": ("nums", "target"), "dapo_math": ("prompt", "reward_model"),
}  # fmt: skip
CODE = '''"""How a row of {name} is read, named by the recipes' `dataset_format: ./read_row.py`.

Here {why}.
"""
{imports}

def read_row(row: dict) -> dict | None:
    """Return the prompt of a row and what else the stages need of it; None would leave the row out."""
{before}    return {{
{fields}    }}
'''
LISTED = r'''    options = [str(option) for option in {options} if option is not None]
    listed = "\n".join(f"{{letter}}. {{option}}" for letter, option in zip("ABCDEFGHIJ", options))
'''
RUBRIC = r'''    rubric = row["rubric"] if isinstance(row["rubric"], str) else "\n".join(map(str, row["rubric"]))
'''
BOXED = r'"The answer is \\boxed{" + str(row["answer"]) + "}."'


@dataclass(frozen=True)
class Reading:
    """How rows are read.

    Attributes:
        roles: `{role: column of the data}`.
        rename: the recipes' `rename_columns`.
        format: their `dataset_format`, None for plain columns.
        code: the text of `read_row.py`, "" without one.
        golds: what the columns tell of them: letters, code, rubric; "" where the answers themselves tell.
    """

    roles: dict[str, str]
    rename: dict[str, str] = field(default_factory=dict)
    format: str | None = None
    code: str = ""
    golds: str = ""


def reading_of(name: str, rows: Rows, columns: Sequence[str], roles: dict[str, str]) -> Reading:
    """Choose how a table is read; see `roles` for what its columns are.

    Args:
        name: the file, for the text of `read_row.py`.
    """

    def renamed(**names: str) -> dict[str, str]:
        """Give each role its name, and another to a column that has this name without the role."""
        wanted = {column: names.get(role, role) for role, column in roles.items()}
        others = {c: f"other_{c}" for c in columns if c in wanted.values() and c not in wanted}
        return {column: new for column, new in (wanted | others).items() if column != new}

    def own(why: str, golds: str = "", before: str = "", **fields: str) -> Reading:
        """Read rows by a file of the folder's own; `fields` are expressions of the renamed row."""
        if "context" in roles and "prompt" in roles:
            fields["prompt"] = fields["prompt"].replace('row["prompt"]', '"\\n\\n".join(filter(None, (row["context"], row["prompt"])))')
        lines = "".join(f'        "{field}": {value},\n' for field, value in fields.items())
        imports = "\nfrom reasoning_ext import think\n" if "think." in before + lines else ""
        code = CODE.format(name=name, why=why, imports=imports, before=before, fields=lines)
        return Reading(roles, renamed(), f"./{FILE}", code, golds)

    if known := next((format for format, names in KNOWN.items() if {*names} <= {*columns}), None):
        return Reading({}, {}, known)
    if "messages" in roles:
        return _chat(rows, roles, renamed(), own)
    if "conversations" in roles:
        return Reading(roles, renamed(), "sharegpt")
    if options := option_columns(columns) or (["choices"] if "choices" in roles else []):
        return _choices(rows, roles, options, renamed, own)
    if "rubric" in roles:
        told = next((f"{{row['{role}']}}\\n\\n" for role in ("answer", "completion") if role in roles), "")
        answer = f"""f"{told}What earns points:\\n{{rubric}}\""""
        return own("a judge is given the row's own rubric as its reference", "rubric", RUBRIC, prompt='row["prompt"]', answer=answer)
    if "tests" in roles:
        if "context" in roles:
            return own("its context stands before its task", "code", prompt='row["prompt"]', tests='row["tests"]')
        return Reading(roles, renamed(), golds="code")
    return _answered(rows, roles, renamed, own)


def _chat(rows: Rows, roles: dict[str, str], rename: dict[str, str], own) -> Reading:
    """Read conversations; the last message is trained on, or, where it is prose, what a judge compares with."""
    last = [{"said": str(chat[-1])} for chat in values(rows, roles["messages"]) if isinstance(chat, list)]
    if "answer" in roles or any(share(last, "said", mark) for mark in (think.CLOSE, "'thinking'", "'reasoning")):
        return Reading(roles, rename, "messages")
    why = "its last message is what a judge compares answers with"
    return own(why, prompt='row["messages"][:-1]', answer='row["messages"][-1]["content"]')


def _choices(rows: Rows, roles: dict[str, str], options: list[str], renamed, own) -> Reading:
    """Read multiple choice: as `mmlu` where options are a list and golds letters or places from 0, else by a file."""
    golds = [str(value).strip() for value in values(rows, roles["answer"])] if "answer" in roles else []
    numbers, lists = all(gold.isdecimal() for gold in golds), options == ["choices"]
    mapping = lists and isinstance(values(rows, roles["choices"])[0], dict)
    from_zero = numbers and "0" in golds
    if lists and not mapping and golds and (from_zero or all(len(gold) == 1 and gold.isupper() for gold in golds)):
        return Reading(roles, renamed(prompt="question"), "mmlu", golds="letters")
    held = 'row["choices"]["text"]' if mapping else 'row["choices"]' if lists else f"[row[name] for name in {options}]"
    answer = f'"ABCDEFGHIJ"[int(row["answer"]){"" if from_zero else " - 1"}]' if numbers else 'row["answer"]'
    return own(
        "its options are listed under the question", "letters", LISTED.format(options=held),
        prompt='row["prompt"] + "\\n\\n" + listed', **({"answer": answer} if golds else {}), choices="options",
    )  # fmt: skip


def _answered(rows: Rows, roles: dict[str, str], renamed, own) -> Reading:
    """Read problems with answers, solutions or traces, as far as they have them."""
    told = roles.get("completion")
    has_traces, context = bool(told) and share(rows, told or "", think.CLOSE) > MOST, "context" in roles
    if told and share(rows, told, "####") > MOST and "answer" not in roles and not context:
        return Reading(roles, renamed(prompt="question", completion="answer"), "gsm8k")
    if told and not has_traces and share(rows, told, r"\boxed{") > MOST and "thought" not in roles and not context:
        return Reading(roles, renamed(prompt="problem", completion="solution"), "math")
    if has_traces and "answer" not in roles and share(rows, told or "", r"\boxed{") > MOST:
        gold = 'think.last_boxed(row["completion"])'
        return own("its gold is the last box of its trace", prompt='row["prompt"]', completion='row["completion"]', answer=gold)
    steps = "thought" if "thought" in roles else "completion" if told and not has_traces else ""
    if steps and "answer" in roles and not (told and "thought" in roles) and is_short(rows, roles["answer"]):
        whole = f'think.join(row["{steps}"], {BOXED})'
        return own("its solution is the thought, its answer is boxed", prompt='row["prompt"]', completion=whole, answer='row["answer"]')
    if context:
        more = {name: f'row["{name}"]' for name in ("completion", "answer") if name in roles}
        return own("its context stands before its problem", prompt='row["prompt"]', **more)
    prose = told and not has_traces and not {"thought", "answer"} & roles.keys()  # which a judge compares with
    return Reading(roles, renamed(thought="thinking", **({"completion": "answer"} if prose else {})))
