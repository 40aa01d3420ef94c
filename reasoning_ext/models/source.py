"""Everything that a recipe says of a model, in a form that can be pickled, so that Ray's workers open it too.

What a recipe leaves out is chosen by device where the model is opened, not where the recipe is read: a cluster's
workers have cards that the machine which drives them may lack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext.models.devices import Choice, choose, found_device
from reasoning_ext.models.load import load_model
from reasoning_ext.models.loaded import Loaded, LoadOptions, base_revision
from reasoning_ext.models.unsloth import starts_vllm
from reasoning_ext.recipe.trl_fields import MODEL_CONFIG, class_keys
from reasoning_ext.think.messages import TOOLS
from reasoning_ext.think.template import Contract, find_contract
from reasoning_ext.think.tokenizer import load_tokenizer
from reasoning_ext.think.tool_turns import add_tool_turns

if TYPE_CHECKING:
    from trl import ModelConfig

# the keys that are fields of LoadOptions, whose defaults they share, and those that have another name there
SAME = {"backend", "from_scratch", "seed", "trust_remote_code", "max_seq_length", "chat_template_kwargs", "think_tags"}
NAMES = {"model_init_kwargs": "init_kwargs", "vllm_gpu_memory_utilization": "gpu_memory_utilization"}


@dataclass(frozen=True)
class ModelSource:
    """A model that has yet to be opened."""

    name: str  # see `load`; a folder's name is relative to the current folder
    values: Mapping[str, Any] = field(default_factory=dict)  # what the recipe says, by key
    options: LoadOptions = field(default_factory=lambda: LoadOptions(trainable=False))
    use_cpu: bool = False  # the recipe's key
    batch_size: int = 8  # completions that transformers generates together

    @property
    def revision(self) -> str | None:
        """Of a hub name; None for a folder."""
        return base_revision(self.name, self.values.get("model_revision"))

    def choice(self) -> Choice:
        """Choose by this machine's device what the recipe leaves out."""
        frozen = self.values.get("use_peft", False) or not self.options.trainable
        return choose(found_device(self.use_cpu), self.values, frozen=frozen)

    def config(self) -> ModelConfig:
        """Build TRL's ModelConfig."""
        choice, known = self.choice(), class_keys(*MODEL_CONFIG)
        values = {name: value for name, value in self.values.items() if name in known}
        return model_config(values | {"dtype": choice.dtype, "attn_implementation": choice.attn_implementation})

    def load(self) -> Loaded:
        """Open the model with its tokenizer, or raise ModelError."""
        options = replace(self.options, gradient_checkpointing=self.choice().gradient_checkpointing)
        return load_model(self.name, self.config(), options)

    def load_tokenizer(self) -> tuple[Any, Contract]:
        """Open the tokenizer without the model, and find its contract, or raise TokenizerError, ContractError."""
        tokenizer = self.tokenizer()
        return tokenizer, find_contract(tokenizer, self.options.chat_template_kwargs, self.options.think_tags)

    def tokenizer(self) -> Any:
        """Open the tokenizer alone, or raise TokenizerError."""
        options = self.options
        tokenizer = load_tokenizer(self.name, self.revision, options.trust_remote_code, options.chat_template_path)
        if TOOLS in (options.chat_template_kwargs or {}):
            add_tool_turns(tokenizer)
        return tokenizer

    def with_tool_turns(self) -> ModelSource:
        """Return the same model with tool turns in its template, and nothing told of tools where the recipe tells of none."""
        kwargs = {TOOLS: [], **(self.options.chat_template_kwargs or {})}
        return replace(self, options=replace(self.options, chat_template_kwargs=kwargs))


def model_source(
    values: Mapping[str, Any],
    local: Callable[[str], str],
    trainable: bool,
    name: str | None = None,
    template_kwargs: dict[str, Any] | None = None,
    **changed: Any,
) -> ModelSource:
    """Return the model that a recipe's `values` name, or another one, by `name`, to be opened in the same way.

    `local` makes a path that the recipe writes one for the current folder; `template_kwargs` are the recipe's
    chat_template_kwargs with its tools; `changed` are fields of LoadOptions.
    """
    if template_kwargs:
        changed = {"chat_template_kwargs": template_kwargs} | changed
    said = {key: value for key, value in values.items() if key in SAME | NAMES.keys() and value is not None}
    options = {NAMES.get(key, key): value for key, value in said.items()} | changed
    if path := values.get("chat_template_path"):
        options["chat_template_path"] = local(path)
    if trainable:
        options |= {"use_vllm": starts_vllm(values), "merge_adapter": bool(values.get("merge_adapter"))}
        options["run_folder"] = Path(values["output_dir"])
    name = local(name or values["model_name_or_path"])
    use_cpu, batch_size = values.get("use_cpu", False), values.get("per_device_eval_batch_size", 8)
    return ModelSource(name, values, LoadOptions(trainable=trainable, **options), use_cpu, batch_size)


def model_config(values: Mapping[str, Any]) -> ModelConfig:
    """Build TRL's ModelConfig, in which a single module's name stays a name."""
    from trl import ModelConfig

    config = ModelConfig(**values)
    targets = config.lora_target_modules
    if isinstance(targets, str) and targets.isidentifier():
        config.lora_target_modules = [targets]  # TRL takes it out of its list, and PEFT reads a pattern
    return config
