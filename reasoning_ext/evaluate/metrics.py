"""The figures of an evaluation under the name that scripts know; they are made in `scoring.metrics`."""

from reasoning_ext.scoring.metrics import interval, majority_right, metrics, pass_at_k

__all__ = ["interval", "majority_right", "metrics", "pass_at_k"]
