"""Teach a language model to reason on one GPU: YAML recipes and plug-in rewards over TRL and Unsloth."""

__version__ = "0.2.0"
