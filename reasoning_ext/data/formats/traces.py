"""Formats of reasoning traces: OpenR1-Math and Mixture-of-Thoughts, OpenThoughts, s1K."""

from typing import Any

from reasoning_ext import think
from reasoning_ext.data.formats.chats import messages
from reasoning_ext.data.values import finished, gold, is_answered, items, kept, said, text, traced, turns

_BEGIN, _END = "<|begin_of_thought|>", "<|end_of_thought|>"
_BEGIN_SOLUTION, _END_SOLUTION = "<|begin_of_solution|>", "<|end_of_solution|>"


def open_r1(row: dict[str, Any]) -> dict[str, Any] | None:
    """open-r1/OpenR1-Math-220k (`problem`, `answer`, `generations`, `is_reasoning_complete`, `correctness_math_verify`,
    `correctness_llama`) and open-r1/Mixture-of-Thoughts (`messages`, `num_tokens`, `source`).

    Of OpenR1-Math the completion is the first generation that is complete and correct by Math-Verify, else the first
    that is complete and correct by Llama; a row that has neither is left out. Kept of it: `source`, `problem_type`,
    `question_type`. Of Mixture-of-Thoughts it is the last message, and a row whose thought is not closed or has no
    answer after it is left out; all other columns are kept.
    """
    if "generations" not in row:
        made = messages(row)
        whole = finished(made["completion"][-1]["content"] or "")
        return None if whole is None else {**made, "completion": [*made["completion"][:-1], *said(whole)]}
    generation = _verified(row)
    if generation is None:
        return None
    return {
        "prompt": text(row, "problem"),
        "completion": said(generation),
        "answer": gold(row["answer"]),
        **kept(row, "source", "problem_type", "question_type"),
    }


def open_thoughts(row: dict[str, Any]) -> dict[str, Any] | None:
    """open-thoughts/OpenThoughts-114k (`system`, `conversations` with `<|begin_of_thought|>`) and OpenThoughts2-1M and
    OpenThoughts3-1.2M (`conversations` with `<think>`).

    The thought between the marks of the first set comes out between think tags to the character, the solution without
    white space around it. Its system prompt, which asks for those marks, is left away. A row whose thought is not
    closed or has no answer after it is left out. There are no golds. Kept: `source`, `domain`, `difficulty`.
    """
    chat = turns(row)
    completion = _unmarked(chat[-1]["content"]) if is_answered(chat) else None
    if completion is None:
        return None
    prompt = [m for m in chat[:-1] if not (m["role"] == "system" and _BEGIN in m["content"])]
    return {"prompt": prompt, "completion": said(completion), **kept(row, "source", "domain", "difficulty")}


def s1k(row: dict[str, Any], *, model: str = "deepseek") -> dict[str, Any]:
    r"""simplescaling/s1K (`question`, `solution`, `thinking_trajectories`, `attempt`) and simplescaling/s1K-1.1, of which
    `model` says whether `deepseek_thinking_trajectory` and `deepseek_attempt` are taken, or those of `gemini`.

    The gold is the solution's last `\boxed{}`, else the whole solution: a number in many rows, prose in some. Kept:
    `cot_type`, `source_type`.
    """
    if model not in ("deepseek", "gemini"):
        raise ValueError(f"found the model {model}, allowed: deepseek, gemini")
    if "thinking_trajectories" in row:
        thought, attempt = "\n".join(map(str, items(row, "thinking_trajectories"))), text(row, "attempt")
    else:
        thought, attempt = text(row, f"{model}_thinking_trajectory"), text(row, f"{model}_attempt")
    solution = row["solution"]
    return {
        "prompt": text(row, "question"),
        "completion": said(traced(thought, attempt)),
        "answer": gold(think.last_boxed(solution or "") or solution),
        **kept(row, "cot_type", "source_type"),
    }


def _verified(row: dict[str, Any]) -> str | None:
    """Return the first generation that is whole and correct by the better of two judges that found one."""
    generations = items(row, "generations")
    marks = {}
    for column in ("is_reasoning_complete", "correctness_math_verify", "correctness_llama"):
        marks[column] = flags = row[column] or [False] * len(generations)  # a judge that was not asked has none
        if len(flags) != len(generations):
            raise ValueError(f"the column {column} has {len(flags)} values, the column generations {len(generations)}")
    complete, *judges = marks.values()
    for right in judges:
        for generation, is_complete, is_right in zip(generations, complete, right, strict=True):
            if is_complete and is_right and (whole := finished(generation or "")) is not None:
                return whole
    return None


def _unmarked(content: str) -> str | None:
    """Write a completion's marks as think tags; None where a thought is not closed or has no answer."""
    if _BEGIN not in content:
        return finished(content)
    content = content.strip()
    thought, closed, rest = content.removeprefix(_BEGIN).rpartition(_END)
    rest = rest.strip()
    is_solved = rest.startswith(_BEGIN_SOLUTION) and rest.endswith(_END_SOLUTION)
    if not (content.startswith(_BEGIN) and closed and is_solved):
        return None
    solution = rest.removeprefix(_BEGIN_SOLUTION).removesuffix(_END_SOLUTION).strip()
    return finished(f"{think.OPEN}{thought}{think.CLOSE}\n\n{solution}")
