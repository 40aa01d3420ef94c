"""What opens a model: everything that a recipe says of it, in a form that can be pickled, so that Ray's workers open it too.

What a recipe leaves out is chosen by device where the model is opened, not where the recipe is read: a cluster's workers have
cards that the machine which drives them may lack.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from reasoning_ext.models.devices import Choice, choose, found_device
from reasoning_ext.models.load import load_model
from reasoning_ext.models.loaded import DEFAULT_MAX_SEQ_LENGTH, Loaded, LoadOptions, base_revision
from reasoning_ext.models.unsloth import starts_vllm
from reasoning_ext.recipe.trl_fields import MODEL_CONFIG, class_keys
from reasoning_ext.think.template import Contract, find_contract
from reasoning_ext.think.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from trl import ModelConfig

    from reasoning_ext.recipe.load import Recipe


@dataclass(frozen=True)
class ModelSource:
    """A model that has yet to be opened.

    Attributes:
        name: see `model`; a folder's name is relative to the current folder.
        values: what the recipe says, by key; what is not said is chosen by device, or TRL's default.
        options: everything of `model.load_model` but gradient checkpointing, which is chosen by device.
        use_cpu: the recipe's key.
        batch_size: completions that transformers generates together.
    """

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    options: LoadOptions = field(default_factory=lambda: LoadOptions(trainable=False))
    use_cpu: bool = False
    batch_size: int = 8

    def choice(self) -> Choice:
        """Choose by this machine's device what the recipe leaves out."""
        frozen = self.values.get("use_peft", False) or not self.options.trainable
        return choose(found_device(self.use_cpu), self.values, frozen=frozen)

    def config(self) -> ModelConfig:
        """Build TRL's ModelConfig."""
        choice, known = self.choice(), class_keys(*MODEL_CONFIG)
        values = {name: value for name, value in self.values.items() if name in known}
        values |= {"dtype": choice.dtype, "attn_implementation": choice.attn_implementation}
        return model_config(values)

    def load(self) -> Loaded:
        """Open the model with its tokenizer.

        Raises:
            ModelError: it cannot be had.
        """
        options = replace(self.options, gradient_checkpointing=self.choice().gradient_checkpointing)
        return load_model(self.name, self.config(), options)

    def load_tokenizer(self) -> tuple[Any, Contract]:
        """Open the tokenizer without the model, and find its contract.

        Raises:
            TokenizerError, ContractError: it cannot be loaded, or its template cannot be used.
        """
        tokenizer = self.tokenizer()
        return tokenizer, find_contract(tokenizer, self.options.chat_template_kwargs, self.options.think_tags)

    def tokenizer(self) -> Any:
        """Open the tokenizer alone.

        Raises:
            TokenizerError: it cannot be loaded.
        """
        revision = base_revision(self.name, self.values.get("model_revision"))
        options = self.options
        return load_tokenizer(self.name, revision, options.trust_remote_code, options.chat_template_path)


def model_source(recipe: Recipe, trainable: bool, name: str | None = None, **overrides: Any) -> ModelSource:
    """Return the model that a recipe names, or another one to be opened in the same way.

    Args:
        recipe: the recipe.
        trainable: to train it; else to generate with it.
        name: another model.
        **overrides: `from_scratch`, in the place of the recipe's.
    """
    options = LoadOptions(
        backend=recipe.get("backend"),
        from_scratch=overrides.get("from_scratch", recipe.get("from_scratch")),
        trainable=trainable,
        seed=recipe.get("seed"),
        trust_remote_code=recipe.get("trust_remote_code"),
        max_seq_length=recipe.get("max_seq_length") or DEFAULT_MAX_SEQ_LENGTH,
        use_vllm=trainable and starts_vllm(recipe),
        init_kwargs=recipe.get("model_init_kwargs") or {},
        **template_options(recipe),
        **({"run_folder": recipe.output_dir, "merge_adapter": recipe.get("merge_adapter")} if trainable else {}),
        **({"gpu_memory_utilization": recipe.get("vllm_gpu_memory_utilization")} if starts_vllm(recipe) else {}),
    )
    name = recipe.local(name or recipe.values["model_name_or_path"])
    batch_size = recipe.get("per_device_eval_batch_size")
    return ModelSource(name, recipe.values, options, recipe.get("use_cpu"), batch_size)


def model_config(values: dict[str, Any]) -> ModelConfig:
    """Build TRL's ModelConfig, in which a single module's name stays a name."""
    from trl import ModelConfig

    config = ModelConfig(**values)
    targets = config.lora_target_modules
    if isinstance(targets, str) and targets.isidentifier():
        config.lora_target_modules = [targets]  # TRL takes it out of its list, and PEFT reads a pattern
    return config


def template_options(recipe: Recipe) -> dict[str, Any]:
    """Return what a recipe says about the chat template, as `model.LoadOptions` names it."""
    path = recipe.get("chat_template_path")
    return {
        "chat_template_path": recipe.local(path) if path else None,
        "chat_template_kwargs": recipe.get("chat_template_kwargs") or {},
        "think_tags": recipe.get("think_tags"),
    }
