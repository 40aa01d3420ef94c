"""Write the tiny models' folders: a config, a character tokenizer and a chat template with think tags; no weights.

    python recipes/tiny/make_model.py

`model/` is the model that SFT and GRPO train, `student/` the one of about half its size that is distilled. Both are
committed; `from_scratch: true` in a recipe builds random weights from such a folder.
"""

import string
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

HERE = Path(__file__).parent
SPECIAL = ["<|pad|>", "<|unk|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
CHARACTERS = string.digits + string.ascii_letters + string.punctuation + " \n"
TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
<|assistant|>{% generation %}{{ message.content }}<|end|>{% endgeneration %}
{%- else -%}
<|{{ message.role }}|>{{ message.content }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a printable ASCII character; the think tags are plain added tokens, so that decoding keeps them."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, "<think>", "</think>", *CHARACTERS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    core.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
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
    for name, shape in {"model": (96, 3, 3), "student": (64, 3, 2)}.items():
        config(*shape, tok).save_pretrained(HERE / name)
        tok.save_pretrained(HERE / name)
