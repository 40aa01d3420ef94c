"""The memory of TRL's own training step, traced on tensors without data; what `check.memory` is held to.

`fit_activations.py` fits the coefficients of the plan to such traces, `memory_plan.py` compares plans with them. A trace of an
8B shape takes 5 to 20 seconds on one core, without a GPU and without weights.
"""
