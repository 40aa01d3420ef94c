"""What a recipe can set of an engine, `engine_kwargs`, checked before anything is loaded; their texts are what editors show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from reasoning_ext.servers.replies import key_problem, shown_url

MOST = "max_completion_length"
ENGINES = ("transformers", "vllm", "server", "ray")


@dataclass(frozen=True)
class TransformersOptions:
    """Options of `engine: transformers`; it has none, and batches are `per_device_eval_batch_size` completions."""


@dataclass(frozen=True)
class VllmOptions:
    """Options of `engine: vllm`, for what TRL's keys (`vllm_gpu_memory_utilization`, ...) do not say.

    Attributes:
        max_num_seqs: completions under way at once.
        enforce_eager: do without CUDA graphs.
        kv_cache_dtype: of the KV cache, `fp8` for example.
        engine_args: further arguments of `vllm.LLM`, as they are.
    """

    max_num_seqs: int = 256
    enforce_eager: bool = False
    kv_cache_dtype: str = "auto"
    engine_args: dict | None = None


@dataclass(frozen=True)
class ServerOptions:
    """Options of `engine: server`, any OpenAI-compatible endpoint.

    Attributes:
        base_url: the endpoint, up to and with `/v1`, or a list of endpoints that serve the same model.
        max_concurrency: requests under way at once at each endpoint.
        max_retries: how often a request is repeated after a time-out, a broken connection or 5xx; 429 does not count.
        request_timeout: seconds that one request may take.
        give_up_seconds: stop when no endpoint has answered for so long.
        api_key_env: the environment variable that holds the key, if the server wants one.
    """

    base_url: str | list = "http://localhost:8000/v1"
    max_concurrency: int = 32
    max_retries: int = 5
    request_timeout: float = 600.0
    give_up_seconds: float = 45.0
    api_key_env: str = "OPENAI_API_KEY"

    def urls(self) -> list[str]:
        """Return the endpoints, which are one or a list."""
        return self.base_url if isinstance(self.base_url, list) else [self.base_url]


@dataclass(frozen=True)
class RayOptions:
    """Options of `engine: ray`: one of the other engines on every worker of Ray, on a cluster or on this machine.

    Attributes:
        engine: what each worker runs: `transformers` or `vllm`.
        num_workers: workers, each with a model of its own.
        num_gpus: GPUs a worker takes; 0 on CPUs.
        num_cpus: CPUs a worker takes.
        batch_size: completions a worker is given at once.
        address: of a running cluster, `auto` for the one that this machine belongs to; none starts Ray here.
        engine_kwargs: options of the workers' engine.
    """

    engine: str = field(default="vllm", metadata={"choices": ("transformers", "vllm")})
    num_workers: int = 1
    num_gpus: float = 1.0
    num_cpus: float = 1.0
    batch_size: int = 256
    address: str | None = None
    engine_kwargs: dict | None = None


OPTIONS: dict[str, type] = dict(
    zip(ENGINES, (TransformersOptions, VllmOptions, ServerOptions, RayOptions), strict=True)
)


def crossed_bounds(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the bounds of a thought that leave nothing between them, the lower and the higher by name, of those given."""
    for low, high in (("thinking_budget", MOST), ("min_thinking", MOST), ("min_thinking", "thinking_budget")):
        less, more = values.get(low), values.get(high)
        if isinstance(less, int) and isinstance(more, int) and less >= more + (high != MOST):  # an answer needs a token
            yield low, high


def server_problems(options: ServerOptions) -> list[tuple[str, str, str]]:
    """Return what cannot work in an engine's options before anything is loaded or asked: `(option, found, allowed)` each."""
    urls = options.urls()
    problems = [] if urls else [("base_url", "found an empty list", "a URL, or several")]
    problems += [("base_url", *wrong) for url in urls if (wrong := _url_problem(url))]
    if len(set(map(str, urls))) < len(urls):
        allowed = "each once, max_concurrency says how much it is asked"
        problems.append(("base_url", "found an endpoint twice", allowed))
    for name, least in (("max_concurrency", 1), ("max_retries", 0)):
        if type(value := getattr(options, name)) is not int or value < least:
            problems.append((name, f"found {value!r}", f"a whole number of at least {least}"))
    for name in ("request_timeout", "give_up_seconds"):
        if type(value := getattr(options, name)) not in (int, float) or not value > 0:
            problems.append((name, f"found {value!r}", "a number greater than 0"))
    if problem := key_problem(options.api_key_env):
        problems.append(("api_key_env", f"{problem}; set it again", ""))
    return problems


def _url_problem(url: object) -> tuple[str, str] | None:
    """Return what is wrong with an endpoint's URL; what may be a password is not shown."""
    allowed = "http://host:port/v1 or https://host/v1"
    try:
        parts, found = urlsplit(str(url)), f"found {(shown_url(url) if isinstance(url, str) else url)!r}"
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and url == str(url).strip()
    except ValueError:
        return "found a URL with a host or port that cannot be", allowed
    if not fits or parts.query or parts.fragment:
        return found, allowed
    completions = parts.path.rstrip("/").endswith("/completions")
    return (found, f"{allowed}, the rest is added") if completions else None
