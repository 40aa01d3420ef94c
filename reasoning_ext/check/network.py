"""What leaves this machine unasked, and a hub that does not answer: settled once, before libraries are imported."""

from __future__ import annotations

import http.client
import os
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence

from reasoning_ext.recipe.load import Recipe
from reasoning_ext.shown import print, without_secrets

# what TRL, Hugging Face, Unsloth, Ray, vLLM, wandb and mlflow report to their makers; `telemetry: true` leaves them alone
SILENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "UNSLOTH_DISABLE_STATISTICS": "1", "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1", "WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true",
}  # fmt: skip
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
TRUE = {"1", "ON", "YES", "TRUE"}  # huggingface_hub's, which reads the rest of the environment once it is imported
HUB_SECONDS = 8.0


def settle(recipes: Sequence[Recipe], offline: bool = False) -> bool:
    """Switch reports off unless a recipe wants them, and the hub where one needs it and it does not answer.

    Returns whether the hub is not to be asked, as it is with `offline` anyway.
    """
    if not any(recipe.get("telemetry") for recipe in recipes):
        os.environ.update(SILENT)
    asked = not offline and not _switched_off()
    asked = asked and any(_needs_hub(recipe, recipes) for recipe in recipes)
    if asked and (problem := hub_problem()):
        print(f"warning: {problem}; going on without it, with what is here and in the cache", file=sys.stderr)
        offline = True
    if offline:
        os.environ.update(dict.fromkeys(OFFLINE, "1"))
    return offline


def _needs_hub(recipe: Recipe, others: Sequence[Recipe]) -> bool:
    """Tell whether a recipe names a model or data that may be on the hub, and is none that another recipe makes."""
    from reasoning_ext.data.row_options import on_hub
    from reasoning_ext.data.sources import local_source
    from reasoning_ext.recipe.entries import asks_server, eval_models

    found = [] if asks_server(recipe) else [recipe.values.get("model_name_or_path"), *eval_models(recipe).values()]
    names = [name for name in (*found, recipe.values.get("chat_template_path")) if isinstance(name, str)]
    made = {str(other.get("output_dir")) for other in others}
    return any(local_source(recipe.local(name)) is None and name not in made for name in names) or on_hub(recipe)


def _switched_off() -> str:
    """Name the variable that switches the hub off; `HF_HUB_OFFLINE=0` does not."""
    return next((name for name in OFFLINE if os.environ.get(name, "").upper() in TRUE), "")


def hub_problem() -> str:
    """Say why the hub cannot be asked, or nothing."""
    if named := _switched_off():
        return f"{named} is set"
    return _hub_problem(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")


def _hub_problem(url: str) -> str:
    """Ask the hub once, and say why it cannot be asked, or nothing."""
    found = ["does not answer (timed out)"]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=HUB_SECONDS).close()
            found.append("")
        except urllib.error.HTTPError as error:
            found.append(f"answers {error.code}" if error.code >= 500 else "")
        except (OSError, ValueError, http.client.HTTPException) as error:
            found.append(f"does not answer ({getattr(error, 'reason', error)})")

    # by itself a time limit holds for each of its addresses, and for none of their names
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_SECONDS)
    return found[-1] and f"the hub, {without_secrets(url)}, {found[-1]}"
