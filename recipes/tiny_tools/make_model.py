"""Write the folder of the tiny model that calls tools: config, character tokenizer, chat template with tool turns; no weights.

    python recipes/tiny_tools/make_model.py

As `recipes/tiny/make_model.py`, with three things more. The template writes calls as most do, `<tool_call>` around JSON, and a
result behind `<|tool|>`. What every call repeats is one token each (`{"name": "` and the like), so that a call is as short as
what it says. And what the tools are is not told: their names and parameters are learned from the traces.
"""

import re
import string
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

HERE = Path(__file__).parent
SPECIAL = ["<|pad|>", "<|unk|>", "<|user|>", "<|assistant|>", "<|system|>", "<|tool|>", "<|end|>"]
TAGS = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
CALLS = [
    '{"name": "',
    '", "arguments": {"',
    '": "',
    '"}}',
    '": ',
    "}}",
]  # the longer ones first: the first that fits is taken
NAMES = ["calculator", "expression", "search", "query", "guess", "number", "higher", "lower", "right"]
CHARACTERS = string.digits + string.ascii_letters + string.punctuation + " \n"
TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
<|assistant|>{% generation %}{{ message.content }}
{%- for call in message.tool_calls or [] -%}
<tool_call>{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</tool_call>
{%- endfor -%}
<|end|>{% endgeneration %}
{%- else -%}
<|{{ message.role }}|>{{ message.content }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a printable ASCII character, a tag, a name or a piece of a call's JSON; tags are kept in decoding."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *TAGS, *CALLS, *NAMES, *CHARACTERS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("|".join([*map(re.escape, CALLS), *NAMES, r"[\s\S]"])), "isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    core.add_tokens([AddedToken(token, special=False) for token in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|pad|>",
        unk_token="<|unk|>",
        eos_token="<|end|>",
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )


def config(hidden_size: int, layers: int, heads: int, tok: PreTrainedTokenizerFast) -> LlamaConfig:
    """A Llama of the given size over the tokenizer's vocabulary."""
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(tok),
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 8 // 3 // 8 * 8,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},  # short texts: a fine sense of position
        tie_word_embeddings=True,
        initializer_range=0.05,
        pad_token_id=tok.pad_token_id,
        bos_token_id=None,
        eos_token_id=tok.eos_token_id,
    )


if __name__ == "__main__":
    tok = tokenizer()
    config(64, 2, 4, tok).save_pretrained(HERE / "model")
    tok.save_pretrained(HERE / "model")
