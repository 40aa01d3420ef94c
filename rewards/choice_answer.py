r"""1.0 for the right option of a multiple-choice question, said in any usual way: `\boxed{B}`, `Answer: (b)`, its text.

What counts is the last box, else the last statement (`the answer is B`, `I choose B`, `B is correct`, `答案是B`), else the
lines that are nothing but an option, else all options mentioned. Two different options at that one place are hedging.
"""

import re
from typing import Any

from reasoning_ext import think
from reasoning_ext.verifier.wording import CLOSED, INSIDE, OPENED, in_english, is_text, last_boxes, lines, unified

_MAX_CHARACTERS, _MAX_STATEMENTS = 4_000, 20  # an answer is at the end of its text
_MARK = 0xE000  # an option's text is read as one private-use character: _MARK for A, _MARK + 1 for B ...

_LEADING = " \n:=-•>#("
_TEX_TEXT = re.compile(r"\\(?:text|math)[a-z]{0,6}\{([^{}]*+)\}")
_MARKUP = re.compile(r"[*_`$\"«»「」『』《》\ue000-\uf8ff]|\\[()\[\],;!\\ ]|</?(?:b|strong|i|em|u)>")
_OPTION_WORD = re.compile(r"\b(?:option|choice|letter) \(?([A-HJ-Z])\)?(?![\w'-])", re.IGNORECASE)
_LONE = re.compile(r"[-•>#( ]*+[A-Za-z\ue000-\uf8ff](?:[).:]++ ?)?+[\ue000-\uf8ff]?+[. ]*+")

# In prose "A" and "I" are words, and so is a small letter that neither starts what is read nor follows "or" or a comma.
_MENTION = re.compile(
    r"""(?<![\w\\])(?<!\w-)(?<!not\ )
    (?: \(([A-Za-z])\) | ([B-HJ-Z\ue000-\uf8ff])
      | ([AI])(?:(?!\ [A-Za-z]{2})|(?=\ (?:is|because|since|or|and)\b)) | (A)(?=\ (?:nor|but|vs|maybe|perhaps)\b)
      | (?:^|(?<=or\ )|(?<=and\ )|(?<=,\ )|(?<=/))([a-z])(?:(?!\ ?[a-z])|(?=\ (?:is|because|since|or|and)\b)) )
    (?!\w|'\w|-\w)
    (?!\ (?:(?:is|was|can|could|does|would)(?:n't|\ not)|cannot|can't
      |(?:is|was)\ (?:wrong|incorrect|false|impossible|ruled|eliminated|excluded))\b)""",
    re.VERBOSE,
)
_LETTER = r" \(?[A-Z\ue000-\uf8ff]\)?(?![\w'-])"
_DENIED = re.compile(
    r" ?(?:\b(?:not|cannot|never|nor|neither|(?<!other )than|instead of"
    r"|(?:rul|eliminat|exclud|reject)(?:es?|ed|ing)?(?: out)?)|n't)"
    r"(?: (?:be|choose|pick|select|go with|think|believe|that|the|right|correct|best|answer|option|choice|is|it's|it))*+"
    rf"{_LETTER}(?:(?:,{_LETTER})*+,? (?:or|nor|and){_LETTER})*+",
    re.IGNORECASE,
)
_STATED = re.compile(
    r"\b(?:answer|option|choice|letter)(?: (?:is|would be|must be|should be)\b|(?= ?[:=-]))"
    r"|\b(?:choose|pick|select|go(?:ing)? with)\b",
    re.IGNORECASE,
)
_JUDGED = re.compile(r" (?:is|must be) (?:clearly )?(?:the )?(?:only )?(?:correct|right|best|answer)\b", re.IGNORECASE)
_SUPPOSED = re.compile(
    r"\b(?:if|suppose|assum(?:e|ing)|whether|unless|not (?:true|the case)|(?:wrong|incorrect|false) (?:answer|option|choice))\b"
    r"[^.;:!?,\n]*+",
    re.IGNORECASE,
)
_REASON = re.compile(
    r"\b(?:because|since|as|so|but|not|rather|instead|which|while|whereas)\b|,(?= \(?[A-Z]\)? (?:is|was)\b)"
)
_STOP = re.compile(r"[\n;!?]|\.(?=\s|$)")
_PAUSE = re.compile(r"[.;:!?,\n]")
_LABELLED = re.compile(r"\(?([A-Za-z])(?:[).:]++(?: .*)?)?")
_REASON_GIVEN = re.compile(r"\b(?:because|since)\b")


def choice_answer(completions: list, answer: list[str], **kwargs: Any) -> list[float | None]:
    r"""Reward a completion that settles on the right option.

    Args:
        completions: N completions, messages or strings.
        answer: N golds: a letter (`B`, `b`, `(B)`, `B. Paris`) or, where the row has `choices`, an option's text.
        **kwargs: the column `choices`, where there is one: N lists of texts, or N dicts with such a list under `text`.

    Returns:
        N rewards: 1.0 right; 0.0 wrong, hedged, none given, or a thought that was never closed; None where the gold is no
        option. A number is no gold but where it is an option's text: whether 1 means A or B is for a format to say.

    Example:
        >>> texts = [r"<think>...</think>It is \boxed{\text{(B)}}", "I choose B, because A is wrong.", "Paris", "A or B"]
        >>> choice_answer(texts, answer=["B", "(b)", "Paris", "B"], choices=[["Rome", "Paris"]] * 4)
        [1.0, 1.0, 1.0, 0.0]
    """
    columns = zip(completions, answer, kwargs.get("choices") or [None] * len(answer), strict=True)
    return [_reward(think.answer(think.content(completion)) or "", *row) for completion, *row in columns]


def _reward(given: str, gold: Any, choices: Any) -> float | None:
    texts = choices.get("text") if isinstance(choices, dict) else choices
    texts = texts if isinstance(texts, list | tuple) else ()
    options = [_plain(str(text)).strip(" .") if is_text(text) else "" for text in texts]
    right = _gold(str(gold), options) if is_text(gold) else None
    return None if right is None else float(_settled(given, options) == right)


def _gold(gold: str, options: list[str]) -> str | None:
    """Return the gold's letter: the letter itself, else that of the option with its text, else None."""
    gold = _plain(think.last_boxed(gold) or gold).strip(" .")
    texts = [option.lower() for option in options]
    if gold and gold.lower() in texts and not (len(gold) == 1 and gold.isascii() and gold.isalpha()):
        return chr(ord("A") + texts.index(gold.lower()))
    letter = _LABELLED.fullmatch(gold)
    beyond = letter and options and ord(letter[1].upper()) - ord("A") >= len(options)
    return letter[1].upper() if letter and not beyond else None


def _settled(answer: str, options: list[str]) -> str | None:
    """Return the letter that an answer settles on, or None."""
    text = unified(answer[-_MAX_CHARACTERS:])[-_MAX_CHARACTERS:]
    text = CLOSED.sub("\n", OPENED.sub("\nanswer: ", text))
    text = in_english(_marked(_plain(text), options))[-_MAX_CHARACTERS:]
    text = _DENIED.sub(" not,", _OPTION_WORD.sub(r"(\1)", _SUPPOSED.sub("", text)))
    if r"\boxed{" in text:
        boxes = [_named(box) for box in last_boxes(text)]
        named = set().union(*boxes) if all(boxes) else set()
    else:
        lone = {name for line in text.split("\n") if _LONE.fullmatch(line) for name in _named(line)}
        mentioned = _named(_REASON_GIVEN.split(text)[0]) or _named(text)
        named = next((names for names in (*_statements(text)[::-1], lone, mentioned) if names), set())
    return named.pop() if len(named) == 1 else None


def _plain(text: str) -> str:
    """Take markup away, and white space but for one space or line break."""
    return lines(_MARKUP.sub("", _TEX_TEXT.sub(r"\1", unified(text))))


def _marked(text: str, options: list[str]) -> str:
    """Put a private-use character where an option's text stands, the longest one where several begin."""
    index = {
        option.lower(): i for i, option in reversed([*enumerate(options)]) if option and not _LONE.fullmatch(option)
    }
    if not index:
        return text
    texts = "|".join(re.escape(option) for option in sorted(index, key=len, reverse=True))
    pattern = re.compile(rf"(?<!{INSIDE})(?<![\\.-])(?:{texts})(?!{INSIDE}|[.,]\d)", re.IGNORECASE)
    return pattern.sub(lambda match: chr(_MARK + index[low]) if (low := match[0].lower()) in index else match[0], text)


def _statements(text: str) -> list[set[str]]:
    """Return what each statement names, in the order of the text."""
    named = []
    statements = sorted([*_STATED.finditer(text), *_JUDGED.finditer(text)], key=lambda match: match.start())
    for match in statements[-_MAX_STATEMENTS:]:
        if match.re is _STATED:
            sentence = _STOP.split(text[match.end() : match.end() + 200].lstrip(_LEADING))[0]
            named.append(_named(_REASON.split(sentence)[0]))
        else:
            sentence = _PAUSE.split(text[max(0, match.start() - 200) : match.start()])[-1]
            named.append(_named(_REASON.split(sentence)[-1]))
    return named


def _named(text: str) -> set[str]:
    """Return the letters of the options that a text names."""
    names = ("".join(groups) for groups in _MENTION.findall(text.lstrip(_LEADING)))
    return {chr(ord("A") + ord(name) - _MARK) if ord(name) >= _MARK else name.upper() for name in names}
