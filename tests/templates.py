"""Tokenizers for the chat templates that TRL ships: a small byte-level BPE with each template's own special tokens."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

# template -> (bos, eos, pad, the other special tokens, tags that are tokens of their own)
CHATML = (None, "<|im_end|>", "<|endoftext|>", ("<|im_start|>",), ("<think>", "</think>"))
HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>")
LLAMA3 = ("<|begin_of_text|>", "<|eot_id|>", "<|pad|>", HEADERS, ())
TEMPLATES = {
    "qwen3": CHATML,
    "qwen3_instruct_2507": CHATML,
    "qwen3_5_think": CHATML,
    "qwen3_5_nothink": CHATML,
    "qwen2_5": (None, "<|im_end|>", "<|endoftext|>", ("<|im_start|>",), ()),
    "deepseek_r1_distill": (
        "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<pad>", ("<｜User｜>", "<｜Assistant｜>"), ("<think>", "</think>"),
    ),
    "llama3": LLAMA3,
    "llama3_2": LLAMA3,
    "gemma3": ("<bos>", "<eos>", "<pad>", ("<start_of_turn>", "<end_of_turn>"), ()),
    "phi3_5": ("<s>", "<|endoftext|>", "<pad>", ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), ()),
    "gptoss": (
        "<|startoftext|>", "<|return|>", "<|endoftext|>", ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>"), (),
    ),
    "glm4moe": (
        None, "<|endoftext|>", "<pad>", ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
        ("<think>", "</think>"),
    ),
    "smolvlm": (None, "<end_of_utterance>", "<pad>", ("<|im_start|>", "<image>"), ()),
}  # fmt: skip
# the templates of the test of calls beside those, by how their names begin; the longest beginning counts
HARMONY, GEMMA = TEMPLATES["gptoss"], TEMPLATES["gemma3"]
DEEPSEEK = TEMPLATES["deepseek_r1_distill"]
CALLS = ("sep", *(f"{name}▁{side}" for name in ("calls", "call", "outputs", "output") for side in ("begin", "end")))
GEMMA4 = ("turn", "tool_call", "tool_response", "channel", "tool")
GEMMA4 = [token for name in GEMMA4 for token in (f"<|{name}>", f"<{name}|>")]
FAMILIES = {
    "qwen2_5_vl": TEMPLATES["qwen2_5"],
    "qwen2_5": TEMPLATES["qwen2_5"],
    "qwen3": CHATML,
    "nemotron_3": CHATML,
    "lfm2": (
        "<|startoftext|>", "<|im_end|>", "<|pad|>",
        ("<|im_start|>", *(f"<|tool_{a}_{b}|>" for a in ("list", "call", "response") for b in ("start", "end"))), (),
    ),
    "llama3": (*LLAMA3[:3], (*HEADERS, "<|python_tag|>", "<|eom_id|>"), ()),
    "deepseek": (*DEEPSEEK[:3], (*DEEPSEEK[3], *(f"<｜tool▁{name}｜>" for name in CALLS)), DEEPSEEK[4]),
    "cohere": (
        "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<PAD>",
        tuple(f"<|{name}|>" for name in (
            "START_OF_TURN_TOKEN", "SYSTEM_TOKEN", "USER_TOKEN", "CHATBOT_TOKEN", "START_RESPONSE", "END_RESPONSE")), (),
    ),
    "gemma": GEMMA,
    "gemma4": ("<bos>", "<eos>", "<pad>", ('<|"|>', "<|think|>", *GEMMA4), ()),
    "glm4moe": (*TEMPLATES["glm4moe"][:4], ("<think>", "</think>", "<tool_call>", "</tool_call>")),
    "gptoss": HARMONY,
    "muse": ("<|begin|>", "<|eot|>", "<|pad|>", ("<|start|>", "<|message|>", "<|eom|>"), ()),
    "phi3": TEMPLATES["phi3_5"],
    "idefics3": (None, "<end_of_utterance>", "<pad>", ("<|begin_of_text|>", "<image>"), ()),
    "smolvlm": TEMPLATES["smolvlm"],
    "llava": ("<s>", "</s>", "<pad>", ("<image>",), ()),
}  # fmt: skip
FAMILIES["diffusion_gemma"] = FAMILIES["gemma4"]
FOLDER = Path(find_spec("trl").origin).parent / "chat_templates"
# not all of 1.16
TEMPLATES = {name: tokens for name, tokens in TEMPLATES.items() if (FOLDER / f"{name}.jinja").is_file()}
SHIPPED = sorted(path.stem for path in FOLDER.glob("*.jinja"))  # and known here
SHIPPED = [name for name in SHIPPED if any(name.startswith(family) for family in FAMILIES)]
TEXT = [
    "<think>\n3+4=7; 7*2=14. So the answer is 14.\n</think>\n\nThe answer is \\boxed{14}.\n\nFirst, we add the numbers.\n",
    "def f(x):\n    return x + 1\n\n\nuser\n\nassistant\n\n  Let me think about this step by step.\n\n\n",
]


@cache
def _alphabet():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXT * 3, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer.to_str()


def template_text(name):
    """Return a chat template that TRL ships; a test of one that the installed TRL has not is skipped."""
    if not (FOLDER / f"{name}.jinja").is_file():
        pytest.skip(f"TRL has no {name} here")
    return (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


def save_model(folder, tokenizer):
    """Save a tokenizer and the config of a very small Llama beside it."""
    from transformers import LlamaConfig

    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    eos = tokenizer.eos_token_id
    LlamaConfig(vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=eos, **sizes).save_pretrained(folder)
    return folder


def build(name, special_tags=False, text=None, kind=None, strip=False):
    """Build a tokenizer with a template of TRL's, or with another `text`, and of another `kind` (as JSON) than byte-level BPE.

    With `special_tags` decoding drops the tags; with `strip` special tokens take the white space around them, as Phi-3's do.
    """
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

    family = max((family for family in FAMILIES if name.startswith(family)), key=len)
    bos, eos, pad, others, tags = TEMPLATES.get(name, FAMILIES[family])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(kind or _alphabet()), bos_token=bos, eos_token=eos, pad_token=pad
    )
    sides = {"lstrip": strip, "rstrip": strip}
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False, **sides) for token in others])
    tokenizer.add_tokens([AddedToken(tag, special=special_tags, normalized=False) for tag in tags])
    tokenizer.chat_template = text or template_text(name)
    return tokenizer
