"""Models of real shapes with random weights, their tokenizers, and rows of an exact number of tokens; no network.

    python benchmarks/gpu_models.py qwen3-8b --models models        # makes models/qwen3-8b, 16 GB, once

What a step costs depends on the shape of a model and not on what it knows. The shape comes from the public config that
`reasoning_ext.check.memory.shapes` has built in. A tensor at a time is drawn, on the GPU where there is one, so that a
model need not fit anywhere whole. The tokenizer has as many tokens as the model's vocabulary, one a printable character and
fillers up to the end, so that every id that a random model samples decodes.
"""

import argparse
import json
import random
import string
import time
from pathlib import Path

from reasoning_ext.check.memory.shapes import config_of
from reasoning_ext.runs.files import check_space, write_whole

TINY = "tiny"  # the shape of --smoke: Qwen3 with two small layers
TINY_SHAPE = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "intermediate_size": 128, "vocab_size": 512, "max_position_embeddings": 512,
}  # fmt: skip
MADE = "made.json"  # the marker, written last
FORM = 1  # raise it when models must be made again
SHARD_BYTES = 4 * 2**30
STD = 0.02
PAD, END, START = "<|endoftext|>", "<|im_end|>", "<|im_start|>"
TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}
"""
PROMPT_TOKENS = 256  # at most a quarter of the context


def shape_config(name):
    """Return the config of a shape: `tiny`, or a name that `check.memory.shapes.config_of` knows, such as `qwen3-8b`.

    Raises:
        ShapeError: there is no such shape.
    """
    return {**config_of("qwen3-0.6b"), **TINY_SHAPE} if name == TINY else config_of(name)


def make_tokenizer(size):
    """Make a tokenizer of `size` tokens, one a printable character; the others are `[123]` and never read from a text.

    Raises:
        ValueError: the size has no room for the characters.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    plain = ["<think>", "</think>", *string.digits, *string.ascii_letters, *string.punctuation, " ", "\n"]
    known = [PAD, START, END, *plain]
    if size < len(known):
        raise ValueError(f"found a vocabulary of {size} tokens, needed: {len(known)} or more")
    tokens = known + [f"[{i}]" for i in range(len(known), size)]
    core = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=PAD))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens([AddedToken(token, special=True) for token in (PAD, START, END)])
    core.add_tokens([AddedToken(token, special=False) for token in ("<think>", "</think>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, eos_token=END, chat_template=TEMPLATE, clean_up_tokenization_spaces=False
    )


def make_model(name, folder, device=None):
    """Make a model's folder with bfloat16 weights, or use the one that is there with the same config.

    Args:
        name: see `shape_config`.
        folder: where the models are kept; this one goes into `folder/name`.
        device: where the weights are drawn; default: the GPU where there is one.

    Returns:
        the model's folder.

    Raises:
        ShapeError: there is no such shape.
        DiskError: the disk has no room for it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    path = Path(folder) / name.rsplit("/", 1)[-1]
    shape = shape_config(name)
    marker = json.dumps({"form": FORM, "config": shape}, sort_keys=True)
    if (path / MADE).is_file() and (path / MADE).read_text() == marker:
        return path
    started = time.monotonic()
    tokenizer = make_tokenizer((shape.get("text_config") or shape)["vocab_size"])
    fields = {key: value for key, value in shape.items() if key not in ("model_type", "dtype", "torch_dtype")}
    config = AutoConfig.for_model(shape["model_type"], **fields)
    text = config.get_text_config()
    for one in {id(config): config, id(text): text}.values():
        one.dtype = torch.bfloat16
        one.bos_token_id, one.eos_token_id, one.pad_token_id = None, tokenizer.eos_token_id, tokenizer.pad_token_id
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    sizes = {key: tuple(tensor.shape) for key, tensor in model.named_parameters()}  # tied ones once
    check_space(path, sum(2 * tensor.numel() for tensor in model.parameters()))
    path.mkdir(parents=True, exist_ok=True)
    (path / MADE).unlink(missing_ok=True)
    for old in path.glob("*.safetensors"):
        old.unlink()
    model.config.save_pretrained(path)
    model.generation_config.save_pretrained(path)
    tokenizer.save_pretrained(path)
    _save_weights(sizes, path, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    write_whole(path / MADE, marker)
    billions = sum(tensor.numel() for tensor in model.parameters()) / 1e9
    print(f"made {path}: {billions:.2f}e9 parameters in {time.monotonic() - started:.0f} s", flush=True)
    return path


def _save_weights(sizes, path, device):
    """Draw the tensors of `{name: shape}` and write them in shards with transformers' index."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator(device).manual_seed(0)
    shards = _shards(sizes, SHARD_BYTES)
    index = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: _draw(name, sizes[name], generator) for name in names}, path / file, {"format": "pt"})
        index |= dict.fromkeys(names, file)
    total = sum(2 * torch.Size(size).numel() for size in sizes.values())
    write_whole(
        path / "model.safetensors.index.json",
        json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1),
    )


def _draw(name, size, generator):
    """Draw one tensor as a fresh model has it: matrices from a normal distribution, norms 1, biases 0."""
    import torch

    if len(size) > 1:
        drawn = torch.empty(size, dtype=torch.bfloat16, device=generator.device)
        return drawn.normal_(0.0, STD, generator=generator).cpu()
    return (torch.zeros if name.endswith("bias") else torch.ones)(size, dtype=torch.bfloat16)


def _shards(sizes, limit):
    """Group tensors, in their order, into files of at most `limit` bytes of bfloat16."""
    import torch

    shards, room = [], 0
    for name, size in sizes.items():
        needed = 2 * torch.Size(size).numel()
        if needed > room:
            shards.append([])
            room = max(limit, needed)
        shards[-1].append(name)
        room -= needed
    return shards


def split_context(context, completion=None):
    """Return how many tokens of a context are prompt and completion.

    Raises:
        ValueError: the completion leaves no room for a prompt.
    """
    prompt = min(PROMPT_TOKENS, context // 4) if completion is None else context - completion
    if not 0 < prompt < context:
        raise ValueError(
            f"found a completion of {completion} tokens in a context of {context}; leave room for a prompt"
        )
    return prompt, context - prompt


def make_rows(tokenizer, count, prompt, completion, seed=0):
    """Make rows whose rendered prompt has exactly `prompt` tokens and whose completion, end included, has `completion`.

    Returns:
        `{prompt, completion}` with texts, `count` times, all different.

    Raises:
        ValueError: the chat template alone has more tokens than the prompt.
    """
    turn = [{"role": "user", "content": "x"}]
    around = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    around = len(tokenizer(around, add_special_tokens=False)["input_ids"]) - 1
    if prompt <= around or completion < 2:
        raise ValueError(f"found {prompt} + {completion} tokens, needed: more than {around}, and 2 or more")
    rng = random.Random(seed)

    def letters(number):
        return "".join(rng.choices(string.ascii_lowercase, k=number))

    return [{"prompt": letters(prompt - around), "completion": letters(completion - 1)} for _ in range(count)]


def main():
    """Make the models that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="shapes, such as qwen3-8b")
    parser.add_argument("--models", type=Path, default=Path("models"), help="the folder that they are kept in")
    arguments = parser.parse_args()
    for name in arguments.names:
        make_model(name, arguments.models)


if __name__ == "__main__":
    main()
