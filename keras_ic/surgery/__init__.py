"""Rewriting a model into its IC form and folding it for inference: read the graph, plan, build."""

from keras_ic.surgery.build import rewrite
from keras_ic.surgery.fold import fold
from keras_ic.surgery.fold_plan import FoldPlan, plan_fold
from keras_ic.surgery.plan import Plan, plan
from keras_ic.surgery.policy import Site
from keras_ic.surgery.rows import Change, Skip

__all__ = [
    "Change",
    "FoldPlan",
    "Plan",
    "Site",
    "Skip",
    "fold",
    "plan",
    "plan_fold",
    "rewrite",
]
