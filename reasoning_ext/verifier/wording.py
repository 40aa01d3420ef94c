r"""How short answers are worded: look-alike characters, what introduces an answer, boxes side by side, other languages.

For `exact_answer` and `choice_answer`; formulas and numbers are the verifier's.
"""

import re
import unicodedata
from numbers import Number
from typing import Any

from reasoning_ext import think

# The word that introduces an answer, in English and the other large languages, and what joins the two.
ANSWER = (
    r"(?:\b(?:answer|respuesta|resposta|risposta|réponse|antwort|ответ|đáp án)(?: (?:correct[ae]|corretta|đúng))?"
    r"|答案|正解|答え?|정?답|正[确確]的(?:选项|選項)?(?=[是为為]))"
)
IS = r"(?: (?:is|es|est|é|è|ist|là)\b| ?(?:应该?|應該?|就)?[是为為は은는])"
OPENED = re.compile(r"<(?:answer|solution)>", re.IGNORECASE)
CLOSED = re.compile(r"</(?:answer|solution)>", re.IGNORECASE)

_UNIFIED = str.maketrans(
    dict.fromkeys("‐‑‒–−", "-")
    | dict.fromkeys("‘’‛", "'")
    | dict.fromkeys("“”„‟", '"')
    | dict.fromkeys("\u200b\u2060\ufeff\xad", "")
    | {"—": " - ", "―": " - ", "。": ". ", "、": ", "}
)
# Letters of scripts that put no space between words, where no word has edges, and those in which no word begins or ends.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
INSIDE = rf"[^\W{_UNSPACED}]"  # the letters and digits in which no option begins or ends
_FOREIGN = re.compile(  # the words of the table below that are ASCII; a text without them and in ASCII is English
    r"\b(?:respuesta|resposta|risposta|antwort|no es|nicht|o|ou|oder|und|et)\b", re.IGNORECASE
)
_ENGLISH = [  # what is not English, and is said as part of a statement; from top to bottom
    (re.compile(pattern, re.IGNORECASE), english)
    for english, pattern in (
        (" not ", r"并?不是|并非|而非|不应?选择?|\b(?:n'est pas|no es|não é|non è|nicht|не|không phải(?: là)?)\b"),
        (" is wrong, ", r"(?:では|じゃ)(?:な[いく]|ありません)|[이가] ?아(?:니|닌|닙)[라고다니]{0,2}"),
        (
            " is wrong ",
            r"[是都均は는은]? ?(?:不[正对對][确確]?|[错錯][误誤]?|間違い|誤り|틀[렸린립])(?!的?(?:选项|答案)?[是为:])",
        ),
        (" is correct ", r"[是为都均也]?正[确確](?:[的答案选項项]){0,5}+(?![是为為应:])|[是都均也][对對]的?"),
        (" is correct ", r"[がは] ?(?:正解|正しい|答え)(?!は)|を選|[이가] ?(?:정답|답|맞)(?=[이입습다])|[을를] ?선택"),
        (" answer is ", f"{ANSWER}{IS}"),
        (" answer ", ANSWER),
        ("", r"(?<=[A-Z])[选選][项項]"),
        (" choose ", r"[选選][择擇]?(?=[:( ]{0,3}[A-Z\ue000-\uf8ff])|\bchọn\b"),
        (" but ", "而是|但是?|しかし|하지만"),
        (" if ", r"如果|假[设設如]|もし|만약"),
        (" because ", "因[为為]|由[于於]|потому что|porque|weil"),
        (" or ", r"(?<=\b[A-Z]) (?:o|ou|oder|или|hoặc|y|e|et|und|и|và) (?=[A-Z]\b)"),
        (" ", rf"(?<=[{_UNSPACED}])(?![{_UNSPACED}])|(?<![{_UNSPACED}])(?=[{_UNSPACED}])"),
    )
]

_JOINT = re.compile(  # what stands between boxes side by side: `, ` or `$ \text{ or } $` or the bullet of the next one
    r"(?:[\s,;.:/&|+=~$*_`'\"#>(){}\[\]-]|\\[,;:!()\[\] \\]|\\(?:q?quad|text|mathrm)(?![a-z])|[0-9]{1,3}[.)]"
    r"|(?:and|or|nor|else|maybe|perhaps|vs|o|y|e|ou|et|oder|und|или|и|hoặc|và)\b|还是|還是|또는|[或和与與か와과])*+",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"(?:\b(?:not|never|cannot|rather than|instead of)|n't|不是|并非)(?: be)?[\s$*(\\]*+$", re.IGNORECASE
)
_MAX_CHARACTERS = 8_000  # in English a text is longer, and a flood is many times as long


def unified(text: str) -> str:
    """Return a text with one character for all that look alike: NFKC, dashes, quotes, and nothing invisible.

    >>> unified("１９１４–１８，“O’Brien”。")
    '1914-18,"O\\'Brien". '
    """
    return unicodedata.normalize("NFKC", text.translate(_UNIFIED))


def is_text(gold: Any) -> bool:
    """Tell whether a gold is a string or a number, and not None, NaN, or a mapping."""
    return isinstance(gold, str | Number) and gold == gold


def last_boxes(text: str) -> list[str]:
    r"""Return what stands in the last box that is not denied, and in those side by side with it; nothing if it is empty.

    >>> last_boxes(r"\boxed{1}. No wait, \boxed{2} or \boxed{3}, not \boxed{4}")
    ['3', '2']
    """
    boxes = [box for box in think.boxes(text) if not _DENIED.search(text[max(0, box[0] - 20) : box[0]])]
    found: list[str] = []
    start = len(text)
    while boxes and (not found or _JOINT.fullmatch(text, boxes[-1][1], start)):
        start, _, content = boxes.pop()
        found.append(content.strip())
    return [content for content in found if content] if found and found[0] else []


def lines(text: str) -> str:
    """Take white space away, but for one space or line break."""
    return "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())


def in_english(text: str) -> str:
    """Translate what statements of a unified text are made of, with spaces beside letters of scripts that have none.

    >>> in_english("不是A,而是B"), in_english("La respuesta es B"), in_english("Bが正解です")
    ('not A, but B', 'La answer is B', 'B is correct です')
    """
    if text.isascii() and not _FOREIGN.search(text):
        return text
    for pattern, english in _ENGLISH:
        text = pattern.sub(english, text)[-_MAX_CHARACTERS:]
    return lines(text)
