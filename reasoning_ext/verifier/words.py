r"""Answers in words: what counts as one, and when two are the same.

Words are compared as words, never as products of letters, by which `no` would be `on` and `ABC` would be `ACB`. Case,
articles, `\text{}` and punctuation say nothing. Numbers written out are no answer in words: nobody can compare `forty two`.
"""

import re
import unicodedata
from functools import lru_cache

MOST_WORDS = 4  # more is prose, which nobody says twice in the same way
_TEXT = re.compile(r"\\(?:text|mathrm|operatorname)\s*+\{([^{}]*+)\}")
_JOINED = re.compile(r",|;|\band\b|\bor\b")
MATH_WORDS = frozenset(
    "sin cos tan cot sec csc log ln exp sqrt cbrt pi oo inf infty infinity max min gcd lcm mod and or arcsin arccos arctan asin "
    "acos atan sinh cosh tanh floor ceil abs theta alpha beta lambda".split()
)
_NUMBER_WORDS = frozenset(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion half third quarter dozen "
    "point minus negative and a".split()
)
_COUNTS = _NUMBER_WORDS - {*"a and half point minus negative third quarter hundred thousand million".split()}
_WORD = re.compile(r"[^\W\d_]++(?:[-'’][^\W\d_]++)*+\.?")
_SHORT = frozenset(
    "all sat sun mon may jan mar apr jul jun aug day bat cat rat car bar art map man max dna rna cry dry fly sky".split()
)
_SAYS_NOTHING = re.compile(r"\b(?:the|a|an|there (?:is|are|exists?)|it|has|have)\b")
_PREDICATES = frozenset("does do is are has have diverges converges exists increases decreases".split())
_DENIES = re.compile(r"\bnot\b(?! exist)|n't\b|\bnever\b|\bfalse\b|\bno\b")
# What is said in other ways: the words, then the symbols for them, then other words.
_MEANINGS = [
    ("no solution", r"\emptyset \{\} {} ∅", "no real solution|empty set|null set|no solutions"),
    ("all real numbers", r"\mathbb{r} (-\infty,\infty) (-\infty,+\infty) x\in\mathbb{r}", "all reals|all real number"),
    ("all real numbers", "", "every real number|any real number|real numbers"),
    ("all integers", r"\mathbb{z}", ""),
    ("all natural numbers", r"\mathbb{n}", ""),
    ("infinity", r"\infty", "infinite"),
    ("does not exist", "", "dne"),
    ("none", "", "none exist"),
    ("infinitely many", "", "infinitely many solution"),
]
_SYMBOLS = {symbol: meaning for meaning, symbols, _ in _MEANINGS for symbol in symbols.split()}
_SAME = {other: meaning for meaning, _, others in _MEANINGS for other in others.split("|") if other}


@lru_cache(maxsize=16384)
def is_words(text: str) -> bool:
    r"""Tell whether an answer is one to four words, and no product of letters such as `xy`."""
    bare = plain(text)
    words = bare.split()
    if not 0 < len(words) <= MOST_WORDS or _JOINED.search(bare) or is_number_in_words(bare):
        return False
    if not all(_WORD.fullmatch(word) for word in words) or _COUNTS & {*bare.lower().replace("-", " ").split()}:
        return False
    if len(words) > 1:
        return (
            all(len(word) > 1 or word in "aAI" or "." in word for word in words)
            or words[0] == words[0].capitalize() != words[0].upper()
        )
    word = words[0].strip(".")
    if len(word) < 2 or word.lower() in MATH_WORDS:
        return False
    letters_of_products = (
        word.isascii() and len(word) < 4 and word.islower() and not set(word) & set("eio") and word not in _SHORT
    )
    mixed = len(word) < 4 and not (word.islower() or word.isupper() or word.istitle())
    return not letters_of_products and not mixed


def is_number_in_words(text: str) -> bool:
    """Tell whether a text is a number that is written out, `forty-two`."""
    words = re.findall("[a-z]++", text.lower())
    if any(c.isdigit() for c in text):
        return False
    return _NUMBER_WORDS.issuperset(words) and not {*words} <= {"a", "and"}


@lru_cache(maxsize=16384)
def plain(text: str) -> str:
    """Return a text without `\\text{}`, quotes, and white space but for one blank."""
    text = _TEXT.sub(r" \1 ", text).replace(r"\ ", " ").replace("~", " ")
    return " ".join(unicodedata.normalize("NFKC", text).strip(" \"'.,;:!").split())


def same_words(gold: str, answer: str) -> bool:
    """Tell whether two answers in words are the same words."""
    wanted, given = _key(gold), _key(answer)
    if wanted == given:
        return wanted != ""
    predicate = wanted.partition(" ")[0] in _PREDICATES and not _DENIES.search(given)  # the limit does not exist
    return predicate and given.endswith(" " + wanted)


@lru_cache(maxsize=16384)
def _key(text: str) -> str:
    if symbol := _SYMBOLS.get("".join(text.casefold().split())):
        return symbol
    text = plain(text).casefold().replace("-", " ").replace(".", "").replace("’", "'")
    found = " ".join(_SAYS_NOTHING.sub(" ", text).split()) or text
    found = re.sub(r"\b(solution|root)s$", r"\1", found)
    return _SAME.get(found, found)
