"""Why an answer is wrong: the causes that `errors` tells apart, what to do about each, and those that need no draw."""

from __future__ import annotations

from typing import NamedTuple

from reasoning_ext import think, verifier
from reasoning_ext.evaluate.answers import Line
from reasoning_ext.runs.outcomes import is_right
from reasoning_ext.verifier.answers import final_answer


class Cause(NamedTuple):
    """A cause: what was seen, and the edit of a recipe that is for it."""

    meaning: str
    edit: str


CUT_OFF, NO_ANSWER, UNREAD, SLIP, REACHABLE = "cut off", "no answer", "not read", "slip", "reachable"
WRONG_STEP, KNOWLEDGE, MISREAD, NEVER = "wrong step", "knowledge gap", "misread", "never right"
# in the order in which they are asked for: the first that holds is an answer's cause
CAUSES = {
    CUT_OFF: Cause(
        "no end within max_completion_length",
        "raise max_completion_length, or set thinking_budget; if it loops: SFT on answers that end",
    ),
    NO_ANSWER: Cause(
        "nothing behind the thought that could be an answer, or the right one in a form that does not count",
        "add the reward think_format, or SFT on traces in the form that is wanted",
    ),
    UNREAD: Cause(
        "the verifier could not read the answer, or not compare it with the gold",
        "mend the golds that check names, or name the reward that reads such answers first in reward_funcs",
    ),
    SLIP: Cause(
        "the commonest answer of k is right",
        "strategies: [{self_consistency: 8}] answers by vote; stage: grpo trains in what the vote says",
    ),
    REACHABLE: Cause(
        "right within k, and not the commonest",
        "stage: grpo on such problems with num_generations of 8 or more, refill and skip_known",
    ),
    WRONG_STEP: Cause(
        "never right from the start, but from the true steps before the first wrong one",
        "stage: sample with more num_generations, pairs for stage: dpo, and the reward step_check",
    ),
    KNOWLEDGE: Cause(
        "right once the missing fact is in the prompt",
        "tools: [search] over the facts, the facts in the prompt, or SFT on data that hold them",
    ),
    MISREAD: Cause(
        "right once the question is put in other words",
        "SFT on the same problems in several wordings, or a system_prompt that says what is asked for",
    ),
    NEVER: Cause(
        "never right, whatever was tried",
        "SFT on a teacher's traces of such problems, easier ones first, or a larger model_name_or_path",
    ),
}


def cause_at_sight(line: Line, decides: str) -> str:
    """Return the cause of a wrong answer that nothing has to be drawn for, or "".

    Args:
        line: of `answers.jsonl` or `samples.jsonl`, its last turn's text as `completion`.
        decides: the reward that says what is right.
    """
    if not line.get("finished", True) and not line.get("error"):
        return CUT_OFF
    answer = think.answer(line["completion"]) or ""
    if line.get("error") or not answer.strip():
        return NO_ANSWER
    if is_right(line, decides) is None:
        return UNREAD
    gold = line.get("answer")
    if (kind := verifier.kind(gold)) == "none":
        return ""
    question = think.content(line["prompt"]) if line.get("prompt") else ""
    if verifier.judge(gold, answer, question=question).right:
        return NO_ANSWER  # in another form than the reward wants
    said = verifier.said(answer) if kind == "words" else final_answer(answer)
    if said is None:
        return NO_ANSWER
    return UNREAD if kind != "words" and verifier.unreadable([said]) else ""
