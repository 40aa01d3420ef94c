"""The keys of a recipe that are ours and not TRL's; their texts are what editors show."""

from __future__ import annotations

from dataclasses import dataclass, field

from reasoning_ext.recipe.engine_options import ENGINES

# of an entry of decontaminate
QUESTION_KEYS = ("dataset_name", "dataset_config", "dataset_test_split", "dataset_format")
STAGES = ("sft", "grpo", "dpo", "sample", "eval")
TRAINED = ("sft", "grpo", "dpo")  # they train a model
TRACKERS = ("trackio", "wandb", "tensorboard", "mlflow")  # of report_to, in every stage
EVAL_REWARDS = ["math_answer", "think_format"]  # where stage eval names none
PAIR_KINDS = ("right_wrong", "short_long", "steps")  # of what `pairs` counts
STEP_CHECK = "step_check"  # the reward that pairs of the last kind go by
FROM_DATA = ("sft", "dpo")  # they train on completions that the data holds
# What a key decides where that is not what comes out, ours and TRL's; any key that is not here makes another run.
_KINDS = {
    # what is printed, logged, saved on the way, and told to others
    "watching": """
        output_dir run_name report_to project trackio_space_id trackio_bucket_id trackio_static_space_id disable_tqdm log_level
        log_level_replica log_on_each_node logging_strategy logging_first_step logging_steps logging_nan_inf_filter
        log_completions log_completions_hub_repo log_unique_prompts log_multimodal num_completions_to_print
        include_num_input_tokens_seen skip_memory_metrics save_strategy save_steps save_total_limit save_on_each_node
        push_to_hub hub_model_id hub_private_repo hub_revision hub_strategy hub_always_push max_unreadable_golds telemetry
        audit health check_parity
    """,
    # how fast, and where
    "speed": """
        per_device_eval_batch_size dataset_num_proc dataloader_num_workers dataloader_pin_memory
        dataloader_persistent_workers dataloader_prefetch_factor ddp_timeout torch_empty_cache_steps
        vllm_gpu_memory_utilization vllm_enable_sleep_mode vllm_server_base_url vllm_server_host vllm_server_port
        vllm_server_timeout vllm_group_port
    """,
    # of engine_kwargs: how fast and from where completions come; see `engine_options`
    "transport": """
        base_url max_concurrency max_retries request_timeout give_up_seconds api_key_env num_workers num_gpus num_cpus
        batch_size address max_num_seqs enforce_eager
    """,
    # of what was drawn
    "choice": "keep diverse select min_reward min_agreement pairs keep_forced license strategies thinking_curve",
    "length": "max_steps num_train_epochs",  # how long is trained
}
KINDS = {kind: {*names.split()} for kind, names in _KINDS.items()}
# what other trainers, and TRL's older releases, call a key whose name here is not the nearest one
RENAMED = dict(
    pair.split("=")
    for pair in """
torch_dtype=dtype no_cuda=use_cpu grad_clip=max_grad_norm group_by_length=train_sampling_strategy
cutoff_len=max_length sequence_len=max_length max_seq_len=max_length block_size=max_length
max_new_tokens=max_completion_length response_length=max_completion_length lora_rank=lora_r finetuning_type=use_peft
adapter=use_peft clip_ratio=epsilon quantization_bit=load_in_4bit micro_batch_size=per_device_train_batch_size
batch_size=per_device_train_batch_size train_batch_size=per_device_train_batch_size lr=learning_rate kl_coef=beta
base_model=model_name_or_path model=model_name_or_path dataset=dataset_name data_path=dataset_name
train_files=dataset_name dataset_mixture=datasets split=dataset_train_split template=chat_template_path
enable_thinking=chat_template_kwargs flash_attn=attn_implementation flash_attention=attn_implementation
sample_packing=packing rollout_n=num_generations num_return_sequences=num_generations
max_turns=max_tool_calling_iterations max_tool_calls=max_tool_calling_iterations max_iterations=max_tool_calling_iterations
functions=tools tool_names=tools tool_functions=tools environment_factory=environment env=environment
""".split()
)


@dataclass
class Shared:
    """Keys of every stage that are ours and not TRL's.

    Attributes:
        stage: what the recipe does.
        backend: `trl` (any device) or `unsloth`.
        chat_template_path: a .jinja file, or a model whose chat template is used in the place of the tokenizer's.
        chat_template_kwargs: arguments for the chat template, `{enable_thinking: true}` for example.
        think_tags: the opening and the closing tag, where the model's are not `<think>` and `</think>`.
        from_scratch: build random weights from a folder's config.
        max_seq_length: the context that Unsloth prepares, in tokens.
        dataset_format: how a row of the data set is read: a name, `pkg.module.function` or `path/to/file.py:function`.
        rename_columns: `{column of the data set: name the format expects}`.
        format_kwargs: options of the format.
        gen_kwargs: parameters of a Python file, or a reasoning-gym task, that makes the rows.
        system_prompt: put in front of every prompt without one.
        max_samples: use the first so many rows.
        test_size: hold so many rows of a file out, or such a share of them; its splits are `train` and `test` then.
        datasets: several data sets, each a mapping with its own keys, and `weight` or `num_rows`, and `task`.
        deduplicate: drop rows that repeat an earlier one: `exact` or `near`.
        decontaminate: evaluation sets whose questions must not be trained on: names, files, or mappings.
        telemetry: let TRL, Unsloth, vLLM and Ray report what is trained to their makers.
    """

    stage: str = field(default="", metadata={"choices": STAGES})
    backend: str = field(default="trl", metadata={"choices": ("trl", "unsloth")})
    chat_template_path: str | None = None
    chat_template_kwargs: dict | None = None
    think_tags: list | None = None
    from_scratch: bool = False
    max_seq_length: int | None = None
    dataset_format: str | None = None
    rename_columns: dict | None = None
    format_kwargs: dict | None = None
    gen_kwargs: dict | None = None
    system_prompt: str | None = None
    max_samples: int | None = None
    test_size: float | None = None
    datasets: list | None = None
    deduplicate: str = field(default="none", metadata={"choices": ("none", "exact", "near")})
    decontaminate: list | None = None
    telemetry: bool = False


@dataclass
class Trained:
    """Keys of the stages that train a model.

    Attributes:
        merge_adapter: where the model is an adapter: merge it and begin a new one, in the place of training it further.
        unsloth_config: fields that Unsloth adds to TRL's config on a GPU, `{unsloth_num_chunks: 4}` for example.
        eval_problems: answer so many held-out problems every eval_steps steps, greedily; a mapping has more options.
        keep: which weights are saved at the end: the last, or the best by the held-out problems.
        on_fall: what happens when the held-out figure has fallen for certain: a warning, or the run stops.
        health: `{rule: threshold}` in the place of a rule's own, or `{rule: off}`; `list health` has the rules.
        guard: answer general tasks before a training and after it, for what it forgot: `general`, `lm_eval:TASK`.
    """

    merge_adapter: bool = False
    unsloth_config: dict | None = None
    eval_problems: int | dict | None = None
    keep: str = field(default="last", metadata={"choices": ("last", "best")})
    on_fall: str = field(default="warn", metadata={"choices": ("warn", "stop")})
    health: dict | None = None
    guard: str | list | None = None


@dataclass
class Tooled:
    """Keys of the stages in which a model may call tools; `sft` and `dpo` train on traces that did.

    Attributes:
        tools: what the model may call while it thinks: `calculator`, `python`, `search`, or `./my_tools.py:lookup`.
    """

    tools: list | str | None = None


@dataclass
class Acting(Tooled):
    """Keys of the stages that run what the model calls.

    Attributes:
        environment: a class whose public methods the model calls, one object a completion: `./my_env.py:Env`.
    """

    environment: str | dict | None = None


@dataclass
class Preferences(Tooled, Trained):
    """Keys of `stage: dpo`.

    Attributes:
        overlong_rows: what happens to pairs of which a side is over max_length: an error, or they are dropped; none is ever cut.
    """

    overlong_rows: str = field(default="error", metadata={"choices": ("error", "drop")})


@dataclass
class Supervised(Preferences):
    """Keys of `stage: sft`.

    Attributes:
        train_on: the whole completion, or the answer alone, without the thought.
        thought_weight: factor on the loss of each token of the thought.
        answer_weight: factor on the loss of each token of the answer.
        overlong_rows: what happens to rows over max_length: an error, or they are dropped; none is ever cut.
        assistant_turns: train on the last answer of a conversation, or on all, a row each.
        trace_filters: which traces are kept: `correct`, `min_steps`, `min_tokens`, `max_tokens`, `max_repetition`, ...
    """

    train_on: str = field(default="completion", metadata={"choices": ("completion", "answer")})
    thought_weight: float = 1.0
    answer_weight: float = 1.0
    assistant_turns: str = field(default="last", metadata={"choices": ("last", "all")})
    trace_filters: dict | None = None


@dataclass
class Rewarded:
    """Keys of the stages that score completions.

    Attributes:
        reward_funcs: the rewards; in `eval` the first one says what is right.
        max_unreadable_golds: share of golds that nobody can compare with and `check` accepts.
    """

    reward_funcs: list | str | None = None
    max_unreadable_golds: float = 0.01


@dataclass
class Prompted(Rewarded):
    """Keys of the stages that answer a data set's training prompts.

    Attributes:
        max_prompt_length: drop prompts with more tokens; none is ever cut.
        difficulty: the least and the highest pass rate, [0.1, 0.9] for example; of prompts that a sample stage has rated.
    """

    max_prompt_length: int | None = None
    difficulty: list | None = None


@dataclass
class Answered(Acting, Rewarded):
    """Keys of the stages that answer prompts without training.

    Attributes:
        engine: what answers: the model in this process, vLLM, an OpenAI-compatible server, or Ray over the first two.
        engine_kwargs: options of the engine.
        thinking_budget: tokens after which a thought is closed, so that the answer goes on with the rest.
        min_thinking: tokens behind the opening tag before which a thought does not end: it is opened, and goes on with "Wait".
        max_tool_calling_iterations: how often a completion may call tools and go on.
    """

    engine: str = field(default="transformers", metadata={"choices": ENGINES})
    engine_kwargs: dict | None = None
    thinking_budget: int | None = None
    min_thinking: int | None = None
    max_tool_calling_iterations: int = 4


@dataclass
class Rollouts(Acting, Trained, Prompted):
    """Keys of `stage: grpo`.

    Attributes:
        audit: rewards that some of the logged completions are scored with, and that are not trained on.
        skip_known: rest prompts that are solved or hopeless: `{above: 0.95, below: 0.02, retry_after: 200}`.
        refill: draw further prompts in the place of groups without a difference; `{rounds: 3}` says how often at most.
        check_parity: before the first step with Unsloth, hold one batch against plain transformers.
    """

    audit: list | None = None
    skip_known: dict | None = None
    refill: bool | dict = False
    check_parity: bool = True


@dataclass
class Sampling(Answered, Prompted):
    """Keys of `stage: sample`.

    Attributes:
        min_reward: accept completions from this total reward on; left out, those that the first reward calls right.
        min_agreement: where a prompt has no gold, accept the commonest answer that has this share of its completions.
        keep: keep at most so many a prompt.
        diverse: in the place of keep: so many a prompt at most, whose ways to the answer differ.
        select: which of the accepted are kept: the `first`, the `shortest` or those with the `highest_reward`.
        adaptive: stop sampling a prompt once enough is accepted, and spend what that saves on prompts without one.
        min_generations: with adaptive, completions of every prompt in the first round.
        max_generations: with adaptive, the most completions of one prompt; left out, four times num_generations.
        pairs: preference pairs a prompt, by kind: `{right_wrong: 1, short_long: 1, steps: 1}`.
        keep_forced: keep completions with tokens that a thinking budget put there as well.
        license: what the card of the kept rows says of their licence.
    """

    min_reward: float | None = None
    min_agreement: float | None = None
    keep: int = 1
    diverse: int | None = None
    select: str = field(default="first", metadata={"choices": ("first", "shortest", "highest_reward")})
    adaptive: bool = False
    min_generations: int = 1
    max_generations: int | None = None
    pairs: dict | None = None
    keep_forced: bool = False
    license: str | None = None


@dataclass
class Evaluation(Answered):
    """Keys of `stage: eval`.

    Attributes:
        models: the models to compare, `{label: model}`; `runs/grpo/checkpoint-*` is one for each checkpoint.
        strategies: ways to spend tokens at inference, each with its accuracy: `greedy`, `self_consistency: 8`, ...
        thinking_curve: accuracy with the thoughts cut short: `true`, or a mapping with its `shares` and `budgets`.
        benchmark: a benchmark by name, which sets what is left out; `lm_eval:TASK` is lm-evaluation-harness's.
        guard: general tasks that every model answers too: `general`.
    """

    models: dict | list | str | None = None
    strategies: list | None = None
    thinking_curve: bool | dict | None = None
    benchmark: str | None = None
    guard: str | list | None = None
