"""How sub-models get their accuracy back after the cut: each recipe a story over the same parts."""

from planner.network.recipes.default import default
from planner.network.recipes.devit import devit
from planner.network.recipes.ed_vit import ed_vit
from planner.network.recipes.job import Recipe, RecoveryTask, SubModelPart

RECIPES: dict[str, Recipe] = {"default": default, "ed-vit": ed_vit, "devit": devit}

__all__ = ["RECIPES", "Recipe", "RecoveryTask", "SubModelPart"]
