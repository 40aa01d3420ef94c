"""What others have measured on a recipe's benchmark, printed below our own figures with the setting of each."""

from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.published import published
from reasoning_ext.shown import print


def print_published(recipe: Recipe) -> None:
    """Print the published figures of a recipe's benchmark; nothing where it names none.

    Prompts, samples and judges differ from paper to paper, so that each line has its setting.
    """
    if (known := published(recipe.values)) is None:
        return
    own = ", ".join(known.changed)
    other = f"; the figures above were measured with other {own}" if own else ""
    print(f"published for {known.name}, in per cent{other}")
    wide = max(len(row.model) for row in known.rows)
    for row in known.rows:
        print(f"  {row.model:{wide}}  {row.percent:5.1f}  {row.setting}; {row.source}")
