"""Rewriting a model into its IC form and folding it for inference: read the graph, plan, build."""

from keras_ic.surgery.fold import fold, plan_fold
from keras_ic.surgery.plan_report import Change, Plan, Skip
from keras_ic.surgery.policy import Site
from keras_ic.surgery.rewrite import plan, rewrite

__all__ = [
    "Change",
    "Plan",
    "Site",
    "Skip",
    "fold",
    "plan",
    "plan_fold",
    "rewrite",
]
