"""A tokenizer that can be trained and generated with: a chat template and a padding token of its own."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

from reasoning_ext.errors import KeyProblem, one_line

# For base models, whose tokenizer has none. Plain words, so that no token is new to the model, and line ends in place
# of spaces behind the colons, because a space there would be torn off the first word. Turns end with the tokenizer's
# own end.
DEFAULT_TEMPLATE = """\
{%- if bos_token and messages -%}{{ bos_token }}{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == 'system' -%}
        {{- message.content + '\\n\\n' -}}
    {%- elif message.role == 'user' -%}
        {{- 'User:\\n' + message.content + '\\n\\n' -}}
    {%- else -%}
        {{- 'Assistant:\\n' + message.content + eos_token -}}
        {%- if not loop.last %}{{ '\\n\\n' }}{% endif -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ 'Assistant:\\n' }}{% endif -%}
"""
TEMPLATE_SUFFIXES = (".jinja", ".j2")


class TokenizerError(KeyProblem):
    """A tokenizer cannot be had or used; `key` is the recipe's key that is to blame."""

    code = "unusable_tokenizer"


def load_tokenizer(
    name: str, revision: str | None = None, trust_remote_code: bool = False, chat_template_path: str | None = None
) -> Any:
    """Load a tokenizer without its model, as `prepare_tokenizer` makes it, or raise TokenizerError."""
    return prepare_tokenizer(_read(name, "model_name_or_path", revision, trust_remote_code), chat_template_path)


def _read(name: str, key: str, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    try:
        return read_tokenizer(name, revision, trust_remote_code)
    except Exception as error:  # tokenizers has no other for a damaged file
        raise TokenizerError(key, f"cannot load the tokenizer of {name}: {one_line(error)}") from error


def read_tokenizer(name: str, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """Return a tokenizer as it is saved, a copy of one's own; its files are read once while they stay the same."""
    files = sorted(Path(name).iterdir()) if Path(name).is_dir() else []
    stats = [(file.name, file.stat()) for file in files if file.exists()]
    state = tuple((file, stat.st_mtime_ns, stat.st_size) for file, stat in stats)
    return copy.deepcopy(_cached(name, revision, trust_remote_code, state))


@functools.lru_cache(maxsize=8)
def _cached(name: str, revision: str | None, trust_remote_code: bool, state: tuple) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)


def prepare_tokenizer(tokenizer: Any, chat_template_path: str | None = None) -> Any:
    """Give a tokenizer a chat template where it has none, and a padding token that is not the end of a turn, in place.

    The template is that of `chat_template_path`, a `.jinja` file or another model, if given. Raises TokenizerError
    where it cannot be read, or the tokenizer has no token that ends a text.
    """
    if chat_template_path:
        tokenizer.chat_template = _template(chat_template_path)
    if tokenizer.eos_token is None:
        problem = "the tokenizer has no eos_token, so that no completion would ever end"
        raise TokenizerError("model_name_or_path", problem)
    if not tokenizer.chat_template:
        tokenizer.chat_template = DEFAULT_TEMPLATE
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        tokenizer.pad_token = _padding(tokenizer)
    return tokenizer


def _template(path: str) -> str:
    try:
        if path.endswith(TEMPLATE_SUFFIXES):
            return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(
            "chat_template_path", f"found {path}, which cannot be read as UTF-8 text: {error}"
        ) from error
    template: str = _read(path, "chat_template_path").chat_template
    if not template:
        raise TokenizerError("chat_template_path", f"found {path}, whose tokenizer has no chat template")
    return template


def _padding(tokenizer: Any) -> str:
    """Choose a token to pad with that means nothing else: a spare one, else the unknown one, else the end."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    for word in ("pad", "reserved", "unused", "endoftext", "end_of_text"):
        for token in added:
            if word in token and token != tokenizer.eos_token:
                return token
    return tokenizer.unk_token or tokenizer.eos_token
