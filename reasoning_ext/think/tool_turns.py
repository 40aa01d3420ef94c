"""Tool turns for a chat template that has none: Jinja in front of it, which makes plain turns of calls, results and tools.

They have the widespread form of Hermes and Qwen: `<tool_call>` with JSON in the assistant's turn, `<tool_response>` in a
user's, the tools' schemas in the system's message. The template itself stays as it is, and never sees a call.
"""

from __future__ import annotations

import copy
import re
from typing import Any

from reasoning_ext.think import probes

TELL = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
"""
FORM = """\
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""
# `parts`: contents are lists of parts; `system`: the template has a system's turn
PREAMBLE = """\
{%- macro tool_text(content) -%}
{%- if content is string %}{{ content }}{% elif content %}{% for part in content %}{{ part.text }}{% endfor %}{% endif -%}
{%- endmacro -%}
{%- set tool_turns = namespace(messages=[], text='', told='') -%}
{%- if tools -%}
{%- set tool_turns.told = @TELL@ -%}
{%- for tool in tools %}{% set tool_turns.told = tool_turns.told ~ (tool | tojson) ~ '\\n' %}{% endfor -%}
{%- set tool_turns.told = tool_turns.told ~ @FORM@ -%}
{%- set tools = none -%}
{%- if @SYSTEM@ and (not messages or messages[0].role != 'system') -%}
{%- set tool_turns.messages = [{'role': 'system', 'content': @TOLD@}] -%}
{%- set tool_turns.told = '' -%}
{%- endif -%}
{%- endif -%}
{%- for message in messages -%}
{%- if tool_turns.told and message.role == 'system' and @SYSTEM@ -%}
{%- set tool_turns.told = tool_text(message.content) ~ '\\n\\n' ~ tool_turns.told -%}
{%- set tool_turns.messages = tool_turns.messages + [{'role': 'system', 'content': @TOLD@}] -%}
{%- set tool_turns.told = '' -%}
{%- elif tool_turns.told and message.role == 'user' -%}
{%- set tool_turns.told = tool_turns.told ~ '\\n\\n' ~ tool_text(message.content) -%}
{%- set tool_turns.messages = tool_turns.messages + [{'role': 'user', 'content': @TOLD@}] -%}
{%- set tool_turns.told = '' -%}
{%- elif message.role == 'tool' -%}
{%- set result = '<tool_response>\\n' ~ tool_text(message.content) ~ '\\n</tool_response>' -%}
{%- set tool_turns.text = tool_turns.text ~ ('\\n' if tool_turns.text else '') ~ result -%}
{%- if loop.last or loop.nextitem.role != 'tool' -%}
{%- set tool_turns.messages = tool_turns.messages + [{'role': 'user', 'content': @TEXT@}] -%}
{%- set tool_turns.text = '' -%}
{%- endif -%}
{%- elif message.role == 'assistant' and message.tool_calls -%}
{%- set tool_turns.text = tool_text(message.content) -%}
{%- for call in message.tool_calls -%}
{%- set call = call.function or call -%}
{%- set arguments = call.arguments if call.arguments is string else (call.arguments or {}) | tojson -%}
{%- set body = '{"name": "' ~ call.name ~ '", "arguments": ' ~ arguments ~ '}' -%}
{%- set tool_turns.text = tool_turns.text ~ ('\\n' if tool_turns.text else '') ~ '<tool_call>\\n' ~ body ~ '\\n</tool_call>' -%}
{%- endfor -%}
{%- set tool_turns.messages = tool_turns.messages + [{'role': 'assistant', 'content': @TEXT@}] -%}
{%- set tool_turns.text = '' -%}
{%- else -%}
{%- set tool_turns.messages = tool_turns.messages + [message] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = tool_turns.messages -%}
{{- '' }}"""
CALL_MARK, RESULT, KEY, VALUE = "zqjcq", "zqjrq", "zqjkq", "zqjvq"  # words that no template writes


def add_tool_turns(tokenizer: Any) -> None:
    """Give a chat template that renders no calls or no results ours, in place; what it writes of other chats stays."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        tokenizer.chat_template = {name: _with_turns(tokenizer, text) for name, text in template.items()}
    elif template:
        tokenizer.chat_template = _with_turns(tokenizer, template)


def _with_turns(tokenizer: Any, template: str) -> str:
    asked = copy.copy(tokenizer)
    asked.chat_template = template
    probe = probes.Probe(asked, {})
    probe.parts = probes.USER not in probe.attempt(probes.USER_TURN, prompt=True)
    if carries_calls(probe):
        return template
    system = {"role": "system", "content": RESULT}
    has_system = RESULT in probe.attempt(system, probes.USER_TURN, prompt=True)
    content = "[{'type': 'text', 'text': tool_turns.%s}]" if probe.parts else "tool_turns.%s"
    filled = {"@SYSTEM@": str(has_system).lower(), "@TOLD@": content % "told", "@TEXT@": content % "text"}
    preamble = PREAMBLE.replace("@TELL@", _literal(TELL)).replace("@FORM@", _literal(FORM))
    for mark, text in filled.items():
        preamble = preamble.replace(mark, text)
    return preamble + re.sub(
        r"\A[ \t]+(?=\{[%#])", "", template
    )  # Jinja takes this space off at a file's beginning alone


def carries_calls(probe: probes.Probe) -> bool:
    """Tell whether a template renders a call's name and arguments and a result, its arguments as an object or as JSON text."""
    result = {"role": "tool", "name": CALL_MARK, "content": RESULT}
    for arguments in ({KEY: VALUE}, f'{{"{KEY}": "{VALUE}"}}'):
        call = {"type": "function", "function": {"name": CALL_MARK, "arguments": arguments}}
        shown = probe.attempt(probes.USER_TURN, {"role": "assistant", "content": "", "tool_calls": [call]}, result)
        if all(word in shown for word in (CALL_MARK, RESULT, KEY, VALUE)):
            return True
    return False


def _literal(text: str) -> str:
    escaped = text.replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
