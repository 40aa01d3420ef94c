r"""An answer as it was written -> a short clean string, in which only what changes the answer is left (TinyV; FAILURES 11).

Gone are delimiters, bold, colour, spacing commands, look-alike characters, a full stop at the end; kept is every digit, sign,
bracket, letter, unit and exponent. One table of replacements, applied from top to bottom, each in linear time.
"""

import re
import unicodedata
from functools import lru_cache

_UNICODE = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "∗": "*", "⁄": "/",
        "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\neq ", "≈": r"\approx ", "±": r"\pm ",
        "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "°": r"^\circ ", "…": r"\ldots ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}",
        "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}",
        "，": ",", "：": ":", "（": "(", "）": ")", "％": "%", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ",
        "Ω": r"\Omega ", "µ": r"\mu ", "μ": r"\mu ",
        "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u200b": "", "\ufeff": "", "。": ".",
    }
)  # fmt: skip
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_END = r"(?![A-Za-z])"
_HEDGE = r"(?:approximately|approx\.?|about|around|roughly|exactly|only|simply|just|equal to|equals)"
MOST_WRAPPINGS = 20
_AMOUNT, _ORDINAL = r"[-+]?\d++(?:,\d{3})*+(?:\.\d++)?", "(?:st|nd|rd|th)"
_REPLACEMENTS = [
    # commands that were escaped twice, and line breaks with a length
    (r"\\\\(?=(?:boxed|[dtc]?frac|left|right|text|mathrm|sqrt|pi|cdot|times|[lg]eq?|in|infty|cup|pm)\b|\()", r"\\"),
    (r"\\\\\s*\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm)\s*\]", r"\\\\"),
    # one name for commands that look the same
    (r"\\(?:[dtc]|nice|s)frac", r"\\frac"),
    (rf"\\(?:mbox|text(?:normal|rm|sf|bf|it)|math(?:rm|sf|bf|it)|operatorname\*?){_END}", r"\\text"),
    (r"\\begin\s*\{[bB]matrix\}|\\begin\s*\{smallmatrix\}", r"\\begin{pmatrix}"),
    (r"\\end\s*\{[bB]matrix\}|\\end\s*\{smallmatrix\}", r"\\end{pmatrix}"),
    (r"\{([^{}]{1,20})\\choose([^{}]{1,20})\}", r"\\binom{\1}{\2}"),
    (rf"\\lbrace{_END}", r"\\{"), (rf"\\rbrace{_END}", r"\\}"),
    (rf"\\(?:lbrack){_END}", "["), (rf"\\rbrack{_END}", "]"),
    (rf"\\langle{_END}", "("), (rf"\\rangle{_END}", ")"),
    (rf"\\[lr]?vert{_END}", "|"),
    (rf"\\varnothing{_END}", r"\\emptyset"),
    (rf"\\(?:leqslant|leq){_END}|<=", r"\\le "), (rf"\\(?:geqslant|geq){_END}|>=", r"\\ge "),
    (rf"\\lt{_END}", "<"), (rf"\\gt{_END}", ">"), (rf"\\ne{_END}|!=", r"\\neq "),
    (r":=", "="), (r"\\ce(?=\s*\{)", r"\\text"), (rf"\\rightarrow{_END}", r"\\to "),
    (rf"\\big(cup|cap){_END}", r"\\\1"), (rf"\\mid{_END}", r"\\mid "),
    (rf"\\(?:dots[a-z]?|cdots){_END}|\.\.\.+", r"\\ldots "),
    # what only looks
    (r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\s*\.?(?=[()\[\]{}|\\.])", ""),
    (r"\\textcolor\s*\{[^{}]*\}|\\(?:boldsymbol|bm|pmb|underline|underbar)(?=\s*\{)", ""),
    (rf"\\color\s*(?:\{{[^{{}}]*\}}|[a-z]+)|\\tag\*?\{{[^{{}}]*\}}|\\(?:checkmark|square|blacksquare|qed){_END}", ""),
    (rf"\\(?:display|text)style{_END}|\\(?:no)?limits{_END}|\\(?:bf|rm|it|[lL]arge|LARGE|[hH]uge|small){_END}", ""),
    (r"\\!\s*|\^\{\s*\}", ""),
    (r"\\phantom\s*+\{[^{}]*+\}", " "), (r"\\colon(?![a-z])|\u2236", ":"), (r"\\rm\s*+(?=\{)", r"\\text"),
    (r"(?<!\\)\\[,;:]|(?<!\\)\\ |(?<!\\)~|\\q?quad(?![A-Za-z])|\\hspace\*?\{[^{}]*\}|\\thinspace", " "),
    (r"\{\s*,\s*\}", ","),
    (r"(?<![\\}A-Za-z])\{\s*\}", ""),
    (r"(?<![\w)\]}])\*\*([^*\s][^*]*)\*\*(?![\w(])|(?<!\w)__([^_]+)__(?!\w)|(?<!`)`++([^`]++)`++", r"\1\2\3"),
    # money, per cent, degrees, ordinals, words that only lead to the answer
    (rf"(?:\\\$|\$(?=[^$]*+\Z))\s*+({_AMOUNT}(?:\s++(?:hundred|[mb]illion|trillion|thousand)\b)?)", r"\1\\text{ dollars}"),
    (rf"([€£¥₹])\s*+({_AMOUNT})", r"\2 \1"),
    (r"(?<=[\d}])\s*+\\\$", r"\\text{ dollars}"),
    (r"€", r"\\text{ euros}"), (r"£", r"\\text{ pounds sterling}"),
    (r"¥", r"\\text{ yen}"), (r"₹", r"\\text{ rupees}"), (r"¢", r"\\text{ cents}"),
    (r"\\\$|(?<!\\)\$", ""),
    (r"(?<=\d)\s*[\u4e00-\u9fff]{1,4}$", ""),
    (r"\\%", "%"),
    (r"(?<=[\d}$)])\s*+(?:percent(?:age)?|pct)(?![A-Za-z])|\\text\s*+\{\s*+(?:percent(?:age)?|pct)\s*+\}", "%"),
    (r"\\text\s*\{\s*degrees?\s*\}|(?<=\d)\s*degrees?\b|\\degree(?![A-Za-z])", r"^\\circ "),
    (rf"(?<!\s)\s*+\^\s*+\{{?+\s*+\\text\s*+\{{\s*+{_ORDINAL}\s*+\}}\s*+\}}?+|(?<=\d)\s*+\^\s*+\{{?+\s*+{_ORDINAL}\s*+\}}?+", ""),
    (rf"^\\text\s*+\{{\s*+{_HEDGE}\s*+\}}|^\s*+(?:{_HEDGE}\s++|\\approx(?![A-Za-z]))", ""),
    (r"(?<!\\)\\\[|\\\]|\\\(|\\\)", " "),
    (r"\\text\s*+\{([^A-Za-z{}\\]*+)\}", r"\1"),
    (r"\s+", " "),
]  # fmt: skip
_REPLACED = [(re.compile(pattern), replacement) for pattern, replacement in _REPLACEMENTS]
_COUNTED = re.compile(r"\d++(?:,\d{3})*+(?:\.\d++)?\\text\{ ?(?!deg|perc|pct)[a-z ]++\}")  # 12\text{ apples}
_PLAIN = re.compile(r"[-+]?\d+(?:,\d+)*(?:[./]\d+)?|[A-Za-z]+")
_ALIGNMENT = re.compile(r"\\(?:begin|end)\s*\{(?:align(?:ed)?|gather(?:ed)?|equation|split|multline)\*?\}")


@lru_cache(maxsize=16384)
def clean(text: str) -> str:
    r"""Take away what does not change an answer."""
    if _PLAIN.fullmatch(text) or _COUNTED.fullmatch(text):
        return text
    text = unicodedata.normalize("NFC", text)
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+", lambda m: "^{" + m[0].translate(_RAISED) + "}", text)
    text = re.sub("[₀₁₂₃₄₅₆₇₈₉]+", lambda m: "_{" + m[0].translate(_LOWERED) + "}", text)
    text = re.sub(r"√\s*(\d+|[A-Za-z]|\([^()]*\))", r"\\sqrt{\1}", text).translate(_UNICODE).strip()
    if _ALIGNMENT.search(text) and "matrix" not in text:
        text = re.sub(r"\\\\\s*&?|&", " ", _ALIGNMENT.sub(" ", text))
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    before = None
    for _ in range(MOST_WRAPPINGS):
        if before == text:
            break
        before = text
        text = text.strip(' \n\t"`')
        text = text[1:-1] if len(text) > 1 and text[0] == text[-1] == "'" else text
        text = text.rstrip().rstrip(".,;: ").rstrip("\\")
        text = re.sub(r"^(?:\*\*|__)|(?:\*\*|__)$", "", text)
        text = re.sub(r"^([*_])([^*_]+)\1$", r"\2", text)
        text = _unwrap(text)
    return text


def _unwrap(text: str) -> str:
    r"""Take one pair of braces, `\text{}` or `\boxed{}` off that holds the whole text."""
    match = re.match(r"(?:\\text|\\boxed)?\s*\{", text)
    if match and text.endswith("}") and not text.endswith("\\}"):
        depth = 0
        for i, letter in enumerate(text):
            depth += {"{": 1, "}": -1}.get(letter, 0) if text[i - 1 : i] != "\\" else 0
            if depth == 0 and i >= match.end() - 1:
                return text[match.end() : -1] if i == len(text) - 1 else text
    return text
