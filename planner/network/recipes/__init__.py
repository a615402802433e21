"""Recipes: how sub-models recover their accuracy after the cut, each a short algorithm over the same training loop."""

from planner.network.recipes.default import default
from planner.network.recipes.devit import devit
from planner.network.recipes.ed_vit import ed_vit
from planner.network.recipes.recovery_task import Recipe, RecoveryTask, SubModelPart

RECIPES: dict[str, Recipe] = {"default": default, "ed-vit": ed_vit, "devit": devit}
# Those whose sub-models learn from a teacher, not from labels alone.
RECIPES_WITH_TEACHERS = ("default", "devit")

__all__ = ["RECIPES", "RECIPES_WITH_TEACHERS", "Recipe", "RecoveryTask", "SubModelPart"]
