"""language: what counts as a letter of a script, what is left out, and that no text takes long."""

from pathlib import Path

import pytest
from reasoning_ext.rewards.language import language

from reasoning_ext.scoring.call import build_rewards
from reasoning_ext.scoring.spec import EntryError, parse_rewards
from tests.timing import seconds, slowness

IN_SCRIPT = {
    "latin": "Plain English, naïve façade, Łódź, ﬁne, ＡＢＣ.", "cyrillic": "Это просто текст", "greek": "Η γλώσσα και η αλήθεια",
    "cjk": "今天天气很好，人々", "hangul": "안녕하세요", "arabic": "مرحبا بالعالم", "devanagari": "नमस्ते दुनिया",
    " CJK + Hiragana+KATAKANA ": "私はコーヒーを飲みます。ﾃｽﾄ 漢字とカナ", "latin+cyrillic": "text и текст",
}  # fmt: skip
SHARES = {"abcд": 3 / 4, "<think>слово</think>seven": 0.5, "<think>seven</think>слово": 0.5}
SHARES |= {"so 因为 it": 4 / 6, "λόγος word": 4 / 9, "ᏣᎳᎩ abc": 0.5}
LEFT_OUT = ["$слово$", "$$слово\nслово$$", r"\(слово\)", r"\[слово\]", "`слово`", "```\nслово\n```"]
LEFT_OUT += [*"αμµΩℝª\u0301🙂", "αβ", "𝛼𝛽𝛾𝛿", "123 ١٢٣", "…！？。"]
UNCLOSED = "$слово~\\(слово~`слово~```слово~$5\nслово $6~\\$5 слово \\$6~`a\nслово`~<слово>".split("~")


def test_a_text_in_its_script_gets_one_and_in_another_none():
    for script, text in IN_SCRIPT.items():
        other = "hangul" if script != "hangul" else "cyrillic"
        found = language([text, f"<think>{text}</think>{text}"], script=script) + language([text], script=other)
        assert (script, found) == (script, [1.0, 1.0, 0.0])


def test_the_share_of_letters_without_maths_code_digits_and_signs():
    assert language([*SHARES]) == [pytest.approx(share) for share in SHARES.values()]
    assert {text: language([f"word {text} word", text]) for text in LEFT_OUT} == {
        text: [1.0, None] for text in LEFT_OUT
    }
    assert language(["Δt", "2πr"]) == [1.0, 1.0]
    assert [text for text in UNCLOSED if not language([f"word {text} word"])[0] < 0.7] == []
    nothing = ["", " ", "42", "$x$", "<think></think>", "🙂 ...", [{"role": "assistant", "content": "42"}]]
    assert language(nothing) == [None] * len(nothing)


def test_latin_in_commands_tags_units_and_variables_does_not_count_against_another_script():
    text = r"<think>пусть x равно 5 km, \frac{1}{2} и \boxed{ответ}</think><answer>да</answer>"
    assert language([text], script="cyrillic") == [1.0]
    assert language([text + " English"], script="cyrillic")[0] < 1.0


def test_the_script_in_a_recipe():
    [reward] = build_rewards(parse_rewards([{"language": {"script": "cyrillic"}}], Path()))
    assert reward(completions=["слово", "word"]) == [1.0, 0.0]
    with pytest.raises(EntryError):
        parse_rewards([{"language": {"script": ["latin"]}}], Path())
    for script in ("english", "", "latin+", "latin,greek", "latin+klingon"):
        with pytest.raises(ValueError, match=r"unknown: .*; allowed: latin, "):
            language(["a"], script=script)


FLOODS = "`~```~```a~$~$$~$\n~`\n~\\~\\(~\\[ $~\\a~\\\\(~<~<a~</think>~a~α ~ab ~字~$$ \\) ".split("~")


@pytest.mark.parametrize("script", ["latin", "cjk"])
def test_no_flood_takes_long(script):
    for unit in FLOODS:
        text = (unit * 200_000)[:200_000]
        took = seconds(lambda text=text: language([text], script=script), repeat=2)
        assert took < 0.05 * slowness(), unit
