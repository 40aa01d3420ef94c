"""A recipe's `tools` and `environment`: what is refused, at which key and line, and what the model is told."""

import shutil
from pathlib import Path

import pytest

from reasoning_ext.errors import UserError
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.recipe.user_code import without_code
from reasoning_ext.tools.spec import has_tools, parse_environment, parse_tools, template_kwargs

EVAL = "stage: eval\nmodels: x\ndataset_name: ./rows.jsonl\nreward_funcs: math_answer\noutput_dir: out\n"


@pytest.fixture
def recipe(tmp_path, write_recipe):
    """Load a recipe with some lines more, beside the tests' tools and a corpus."""
    shutil.copy(Path(__file__).parent / "user_tools.py", tmp_path)
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\ndef f(): pass\n")
    (tmp_path / "notes.jsonl").write_text('{"text": "a b"}\n')
    (tmp_path / "empty.jsonl").write_text('\n{"text": " "}\n')
    (tmp_path / "no_text.jsonl").write_text('{"body": "a"}\n')
    (tmp_path / "no_json.jsonl").write_text("a b\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.bin").write_text("a b")
    (tmp_path / "notes.txt").write_bytes(b"a\0b")
    (tmp_path / "form.py").write_text(FORM)
    return lambda lines: load_recipe(write_recipe(EVAL + lines))


FORM = '''\
def by_place(x: str, /) -> str:
    """Do it.

    Args:
        x: what.
    """
    return x


def yields(x: str):
    """Do it.

    Args:
        x: what.
    """
    yield x
'''

WRONG = {
    "{calculator: {seconds: 1.0e+9}}": ("tools.0.calculator.seconds", "up to 86400"),
    "{calculator: {memory_mb: 100000000000000000}}": ("tools.0.calculator.memory_mb", "up to 16777216"),
    "./form.py:by_place": ("tools.0", "before `/`"), "./form.py:yields": ("tools.0", "one that returns"),
    "{search: {corpus: ./notes.bin}}": ("tools.0.search.corpus", "a .jsonl file"),
    "{search: {corpus: ./notes.txt}}": ("tools.0.search.corpus", "no text"),
    "calculater": ("tools.0.calculater", "calculator"), "{calculator: 3}": ("tools.0", "search: {"),
    "3": ("tools.0", "search: {"),
    "{calculator: {secnds: 1}}": ("tools.0.calculator.secnds", "the nearest is seconds"),
    "{calculator: {seconds: 0}}": ("tools.0.calculator.seconds", "above 0"),
    "{calculator: {memory_mb: 1.5}}": ("tools.0.calculator.memory_mb", "whole number"),
    "python": ("tools.0.python.allow_code_execution", "allow_code_execution: true"),
    "{python: {allow_code_execution: 'yes'}}": ("tools.0.python.allow_code_execution", "bool"),
    "search": ("tools.0.search", "corpus"), "{search: {corpus: ./no.jsonl}}": ("tools.0.search.corpus", "looked for"),
    "{search: {corpus: ./empty.jsonl}}": ("tools.0.search.corpus", "no text"),
    "{search: {corpus: ./no_text.jsonl}}": ("tools.0.search.corpus", "row 1 has no text"),
    "{search: {corpus: ./no_json.jsonl}}": ("tools.0.search.corpus", "line 1"),
    "{search: {corpus: ./folder}}": ("tools.0.search.corpus", "no text"),
    "{search: {corpus: ./notes.jsonl, k: 0}}": ("tools.0.search.k", "1 or more"),
    "{search: {corpus: ./notes.jsonl, by: sound}}": ("tools.0.search.by", "bm25, embedding"),
    "{search: {corpus: ./notes.jsonl, kk: 3}}": ("tools.0.search.kk", "the nearest is k"),
    "./user_tools.py:undocumented": ("tools.0", "no docstring"), "./user_tools.py:undescribed": ("tools.0", "'x'"),
    "./user_tools.py:untyped": ("tools.0", "type hint"), "./user_tools.py:lookup": ("tools.0", "table"),
    "./user_tools.py:nothing": ("tools.0", "no function nothing"), "./none.py:f": ("tools.0", "no file"),
    "{./user_tools.py:lookup: {table: 3}}": ("tools.0", "str"), "./broken.py:f": ("tools.0", "nothing_of_this_name"),
    "os.system": ("tools.0", "not written for recipes"),
}  # fmt: skip


@pytest.mark.parametrize("entry", WRONG)
def test_what_is_wrong_with_a_tool_is_one_line_at_its_key(recipe, entry):
    key, said = WRONG[entry]
    with pytest.raises(UserError) as error:
        parse_tools(recipe(f"tools:\n- {entry}\n"))
    problem = error.value.problem
    assert problem.key.startswith(key) and problem.line == 7 and problem.code == "wrong_tool"
    assert said in problem.text and "\n" not in str(problem)


def test_all_errors_are_told_and_a_name_stands_once(recipe):
    wrong = []
    assert parse_tools(recipe("tools:\n- calculator\n- pythn\n- calculator: {max_characters: 9}\n"), wrong) == []
    assert [error.problem.line for error in wrong] == [8, 9]


CLASSES = {
    "Guess": "./my_env.py:Env", "./user_tools.py": "./my_env.py:Env", "./user_tools.py:Guest": "Guess, Locked",
    "./user_tools.py:lookup": "Guess, Locked", "{./user_tools.py:Guess: {mots: 3}}": "the nearest is most",
    "{./user_tools.py:Guess: {most: many}}": "int", "./no_reset.py:Env": "reset", "./untold.py:Env": "docstring",
    "./alone.py:Env": "no public method", "./clash.py:Env": "calculator",
}  # fmt: skip


@pytest.mark.parametrize("entry", CLASSES)
def test_what_is_wrong_with_an_environment_is_one_line(recipe, tmp_path, entry):
    (tmp_path / "no_reset.py").write_text('class Env:\n    def act(self):\n        """Acts."""\n')
    (tmp_path / "untold.py").write_text("class Env:\n    def reset(self, **row): pass\n    def act(self): pass\n")
    (tmp_path / "alone.py").write_text("class Env:\n    def reset(self, **row): pass\n")
    method = 'def calculator(self):\n        """Acts."""\n'
    (tmp_path / "clash.py").write_text(f"class Env:\n    def reset(self, **row): pass\n    {method}")
    with pytest.raises(UserError) as error:
        parse_environment(recipe(f"tools: [calculator]\nenvironment: {entry}\n"))
    assert error.value.problem.key.startswith("environment") and error.value.problem.line == 7
    assert CLASSES[entry] in error.value.problem.text


def test_without_code_nothing_of_the_user_s_is_imported(recipe, tmp_path):
    (tmp_path / "loud.py").write_text('open("imported", "w")\nclass Env: pass\ndef f(x): pass\n')
    lines = "tools: [calculator, ./loud.py:f, ./loud.py:g]\nenvironment: ./loud.py:Env\n".replace(", ./loud.py:g", "")
    with without_code():
        found = recipe(lines)
        assert [spec.name for spec in parse_tools(found)] == ["calculator", "f"]
        assert parse_environment(found).name == "Env"
        assert [told["function"]["name"] for told in template_kwargs(found)["tools"]] == ["calculator"]
    assert not Path("imported").exists()


def test_bounds_are_the_recipe_s_and_what_a_tool_bounds_itself_is_its_own(recipe):
    entries = "{calculator: {seconds: 2}}, {python: {seconds: 3, allow_code_execution: true}}, {search: {corpus: ./notes.jsonl}}"
    calculator, python, search = parse_tools(recipe(f"tools: [{entries}, ./user_tools.py:wait]\n"))[:3]
    assert (calculator.seconds, calculator.options, calculator.bounds_itself) == (2, {}, False)
    assert (python.seconds, python.options["seconds"], python.bounds_itself) == (3, 3, True)
    assert search.memory_mb > calculator.memory_mb and search.options == {"corpus": "./notes.jsonl"}


def test_the_template_s_arguments_have_the_schemas_where_tools_are_asked_for(recipe):
    assert template_kwargs(recipe("chat_template_kwargs: {enable_thinking: true}\n")) == {"enable_thinking": True}
    assert template_kwargs(recipe("tools: []\n")) == {"tools": []} and not has_tools(recipe("tools: []\n"))
    found = recipe("tools: calculator\nenvironment: ./user_tools.py:Guess\nchat_template_kwargs: {a: 1}\n")
    told = template_kwargs(found)
    assert [schema["function"]["name"] for schema in told["tools"]] == ["calculator", "guess", "hang"] and told[
        "a"
    ] == 1
    assert told["tools"][0]["function"]["parameters"]["required"] == ["expression"] and has_tools(found)
