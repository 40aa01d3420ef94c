"""What loading a model takes and gives, whichever backend loads it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext.errors import KeyProblem
from reasoning_ext.think.template import Contract
from reasoning_ext.think.tokenizer import read_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import ModelConfig

DEFAULT_MAX_SEQ_LENGTH = 2048


class ModelError(KeyProblem):
    """A model cannot be loaded as the recipe says; `key` is the recipe's key that is to blame."""

    code = "model_not_loaded"


@dataclass
class Loaded:
    """A model, its tokenizer, the PEFT config that the trainer is still to apply, if any, and the contract."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    peft_config: Any = None
    contract: Contract = field(default_factory=Contract)

    @property
    def context(self) -> int:
        """How many tokens the model can read."""
        config = self.model.config.get_text_config()
        return getattr(config, "max_position_embeddings", None) or sys.maxsize


@dataclass(frozen=True)
class LoadOptions:
    """How to load a model, beside TRL's ModelConfig."""

    backend: str = "trl"
    from_scratch: bool = False  # build random weights from the folder's config
    trainable: bool = True  # else for generation
    seed: int = 42  # of random weights and new adapters
    trust_remote_code: bool = False
    max_seq_length: int = DEFAULT_MAX_SEQ_LENGTH  # the context that Unsloth prepares, in tokens
    gradient_checkpointing: bool = True  # let Unsloth prepare its own; TRL's trainers switch theirs on by themselves
    use_vllm: bool = False  # let Unsloth start vLLM inside the model for fast generation
    gpu_memory_utilization: float = 0.3  # the share of the card that this vLLM takes
    run_folder: Path | None = None  # for bases that a new adapter needs; None where no adapter is begun
    merge_adapter: bool = False  # merge the adapter that the name is, and begin a new one
    init_kwargs: dict[str, Any] = field(default_factory=dict)  # further arguments of `from_pretrained`
    chat_template_path: str | None = None  # in the place of the tokenizer's, see `tokenizer.prepare_tokenizer`
    # this and the next: see `template.find_contract`
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    think_tags: list[str] | None = None


def random_model(
    name: str, config: ModelConfig, options: LoadOptions
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Build random weights from a folder's config, and load the tokenizer that lies there."""
    from transformers import AutoConfig, AutoModelForCausalLM

    revision, trust = base_revision(name, config.model_revision), options.trust_remote_code
    shape = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust)
    dtype = None if config.dtype == "auto" else config.dtype
    model = AutoModelForCausalLM.from_config(shape, dtype=dtype, attn_implementation=config.attn_implementation)
    return model, read_tokenizer(name, revision, trust)


def base_revision(name: str, revision: str | None) -> str | None:
    """Return the revision to load a name with: the recipe's for a hub name, none for a folder."""
    return None if Path(name).exists() else revision
