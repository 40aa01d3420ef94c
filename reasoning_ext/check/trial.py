r"""Rewards tried on a few real rows before any model is loaded: what they pay for the right answer, and for what else.

For each row nine completions are made up, one that gives the gold as it stands and eight that should earn less. Five are
wrong beyond dispute: nothing at all, a wrong answer with and without a thought, the gold inside the thought alone, a flood
of tags. About two boxes that contradict each other and about the prompt copied, rewards may differ.
"""

import random
import re
import threading
from collections.abc import Sequence
from typing import Any

from reasoning_ext import think
from reasoning_ext.data.values import gold_text
from reasoning_ext.scoring.call import Reward, RewardError, Values, build_rewards, call_reward
from reasoning_ext.scoring.spec import RewardSpec
from reasoning_ext.verifier import Rules, Verdict, judge_all, kind

Table = dict[str, dict[str, float | None]]  # what is paid: {completion: {reward: value, None where it does not apply}}

GOLD, NOTHING, WRONG, SHORT = "the gold", "nothing", "a wrong answer", "a short wrong answer"
THOUGHT_ALONE, FLOOD, COPIED = "the gold in the thought alone", "a flood of tags", "the prompt copied"
RIGHT_LAST, RIGHT_FIRST = "a wrong and a right box", "a right and a wrong box"
CERTAIN = (NOTHING, WRONG, SHORT, THOUGHT_ALONE, FLOOD)  # wrong, whatever the reward
_THOUGHT = "Let me work through this one step at a time: 6 + 7 = 13. Then I check the result before I answer."
SECONDS = 60.0  # for `ROWS` rows
ROWS, VALUES, OF_A_VALUE = 8, 16, 2  # rows that rewards are tried on; values of a reward's `when`, and rows of each
_OTHERS = 4  # other rows' golds that are looked at for a wrong answer
_MARKS = re.compile(r"[\W_]+")


def golds_of(answer: Any) -> list[str]:
    """Return the texts of a row's gold, several for a list of alternatives, none for NaN, a mapping or nothing at all.

    >>> golds_of(5), golds_of(["Rome", None]), golds_of(float("nan")), golds_of({"a": 1})
    (['5'], ['Rome'], [], [])
    """
    if isinstance(answer, list | tuple):
        return [text for part in answer if not isinstance(part, list | tuple) for text in golds_of(part)]
    text = gold_text(answer)
    return [text] if text and text.strip() else []


def draw(specs: list[RewardSpec], rows: Any) -> list[dict[str, Any]]:
    """Draw the rows that rewards are tried on from all over the data, some for each value of every `when`.

    `rows` are a `Dataset` or a list, with a column `answer`; those without a gold are not drawn.
    """
    names = {"answer", *(column for spec in specs for column in spec.when)}
    whole = hasattr(rows, "num_rows")
    columns = {name: list(rows[name]) if whole else [row.get(name) for row in rows] for name in names}
    usable = [i for i, answer in enumerate(columns["answer"]) if golds_of(answer)]
    chosen = {*_spread(usable, ROWS)}
    for spec in [spec for spec in specs if spec.when and not spec.is_async]:
        by_value: dict[str, list[int]] = {}
        for i in usable:
            if all(columns[column][i] in allowed for column, allowed in spec.when.items()):
                by_value.setdefault(repr([columns[column][i] for column in spec.when]), []).append(i)
        chosen |= {i for own in _spread([*by_value.values()], VALUES) for i in _spread(own, OF_A_VALUE)}
    return list(rows.select(sorted(chosen))) if whole else [rows[i] for i in sorted(chosen)]


def _spread(items: list, count: int) -> list:
    """Take so many items, one at random from each of as many stretches of a list; the same ones every time."""
    count, dice = min(count, len(items)), random.Random(0)
    return [items[dice.randrange(k * len(items) // count, (k + 1) * len(items) // count)] for k in range(count)]


def made_up(row: dict[str, Any], wrong: str, whole_list: bool = False) -> dict[str, str]:
    r"""Return the completions that a row is tried with, `{what it is: text}`; the first gives the gold.

    The gold is boxed as it stands, `$` and all; of one with a box, that box's content. A list is given as a whole, or the
    first of its alternatives. `wrong` is an answer that is not the row's.
    """
    golds = golds_of(row["answer"])
    right_box, wrong_box = _boxed(", ".join(golds if whole_list else golds[:1])), _boxed(wrong)
    return {
        GOLD: think.join(_THOUGHT, right_box),
        NOTHING: "",
        WRONG: think.join(_THOUGHT, wrong_box),
        SHORT: wrong_box,
        THOUGHT_ALONE: think.join(f"{_THOUGHT} {right_box}", "I cannot tell."),
        RIGHT_LAST: think.join(_THOUGHT, f"{wrong_box} {right_box}"),
        RIGHT_FIRST: think.join(_THOUGHT, f"{right_box} {wrong_box}"),
        COPIED: think.join(_THOUGHT, think.content(row["prompt"])),
        FLOOD: "<think></think>" * 500,
    }


def _boxed(answer: str) -> str:
    return rf"\boxed{{{think.last_boxed(answer) or answer}}}"


def wrong_answers(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Find a wrong answer for each row: another row's gold if one differs in value, else one made up."""
    golds, found, rules = [golds_of(row["answer"]) for row in rows], [], Rules(base_may_be_omitted=True)
    for i, own in enumerate(golds):
        others = dict.fromkeys(texts[0] for texts in (*golds[i + 1 :], *golds[:i]) if texts[0] != own[0])
        alike = [one for one in others if kind(one) == kind(own[0])]
        asked = [think.content(rows[i]["prompt"])] * len(own)
        for other in [*dict.fromkeys([*alike, *others])][:_OTHERS] + _invented(own[0]):
            verdicts = judge_all(own, [_boxed(other)] * len(own), questions=asked, rules=rules)
            if all(_is_wrong(gold, other, verdict) for gold, verdict in zip(own, verdicts, strict=True)):
                break
        found.append(other)
    return found


def _invented(gold: str) -> list[str]:
    """Make up answers that are not the gold, the most telling first; the last one is anybody's guess."""
    bare = _MARKS.sub("", gold)
    if len(bare) == 1 and bare.isascii() and bare.isalpha():
        return ["B" if bare.upper() == "A" else "A", "zebra"]
    if kind(gold) in ("words", "none"):
        return ["zebra", "umbrella"]
    whole = re.fullmatch(r"-?\d{1,18}", gold.strip())
    return [*([str(int(gold) + 1)] if whole else []), "4711", "-0.128", "zebra"]


def _is_wrong(gold: str, other: str, verdict: Verdict) -> bool:
    """Tell whether an answer is wrong beyond dispute: another value; of words, neither may stand in the other."""
    if kind(gold) == "number":
        return verdict.right is False
    one, two = (_MARKS.sub("", text).casefold() for text in (gold, other))
    if kind(gold) == "formula":
        return verdict.right is False and (len(one) > 1 or one != two[:1])  # `A. Paris` is the option `A`
    return bool(one and two) and one not in two and two not in one


def untried(spec: RewardSpec) -> str:
    """Say why a reward cannot be tried on made-up completions, or nothing."""
    sees = "environments" in spec.plugin.required and not spec.plugin.is_factory
    return "waits for a server" if spec.is_async else "looks at an environment" if sees else ""


def try_rewards(specs: list[RewardSpec], rows: Sequence[dict[str, Any]]) -> list[Table]:
    """Score the made-up completions of formatted rows, all with an `answer`; see `untried`.

    Raises:
        RewardError: a reward cannot score them.
    """
    whole_lists = any(spec.options.get("match") == "all" for spec in specs)
    tried = [made_up(row, other, whole_lists) for row, other in zip(rows, wrong_answers(rows), strict=True)]
    texts, repeated = [text for row in tried for text in row.values()], [row for row in rows for _ in tried[0]]
    names = [name for name in rows[0] if name not in ("prompt", "completion", "messages")]
    inputs: dict[str, Any] = {name: [row.get(name) for row in repeated] for name in names}
    inputs |= {"prompts": [row["prompt"] for row in repeated], "completion_ids": [[1] * (len(t) // 4) for t in texts]}
    chats = isinstance(rows[0]["prompt"], list)
    inputs["completions"] = [[{"role": "assistant", "content": text}] if chats else text for text in texts]
    tables: list[Table] = [{name: {} for name in row} for row in tried]
    for reward in build_rewards(specs, tolerated=0):
        if not untried(reward.spec):
            values = iter(_within(SECONDS * max(1, len(rows) / ROWS), reward, **inputs))
            for paid in [paid for table in tables for paid in table.values()]:
                paid[reward.__name__] = next(values)
    return tables


def _within(seconds: float, reward: Reward, /, **inputs: Any) -> Values:
    """Call a reward, and give up on it after some seconds."""
    box: dict[str, Any] = {}

    def call() -> None:
        try:
            box["values"] = call_reward(reward, **inputs)
        except Exception as error:
            box["error"] = error

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if not box:
        count = len(inputs["completions"])
        text = f"no answer for {count} completions in {seconds:g} s; give it a timeout"
        raise RewardError(f"reward {reward.__name__}: {text}")
    if "error" in box:
        raise box["error"]
    return box["values"]


def means(tables: Sequence[Table]) -> Table:
    """Return each completion's mean value a reward over the rows that it applies to, None where it never does."""
    found: Table = {what: {} for what in (tables[0] if tables else ())}
    for what, paid in found.items():
        for name in tables[0][what]:
            given = [value for table in tables if (value := table[what][name]) is not None]
            paid[name] = sum(given) / len(given) if given else None
    return found


def total(values: dict[str, float | None], weights: dict[str, float]) -> float:
    """Return what a completion earns."""
    return sum(weights[name] * (value or 0.0) for name, value in values.items())


def overpaid(table: Table, weights: dict[str, float]) -> dict[str, str]:
    """Say what is paid as much as the gold is, and by which rewards; empty where the gold earns the most."""
    gold, found = table[GOLD], {}
    best = total(gold, weights)
    for what, values in table.items():
        if what == GOLD or (earned := total(values, weights)) < best - 1e-9:
            continue
        worth = {name: weights[name] * (value or 0.0) for name, value in values.items()}
        more = [name for name in worth if worth[name] > weights[name] * (gold[name] or 0.0)]
        by = [f"{name} x {weights[name]:g} {worth[name]:g}" for name in more or worth if more or worth[name] > 0]
        found[what] = f"{what} earns {earned:g}, the gold {best:g} ({', '.join(by) or 'no reward tells them apart'})"
    return found
