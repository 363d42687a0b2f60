"""Rewriting a model into its IC form and folding it for inference: read the graph, plan, build."""

from keras_ic.surgery.fold import fold, plan_fold
from keras_ic.surgery.plan_report import Change, Plan, Skip
from keras_ic.surgery.policy import Site
from keras_ic.surgery.rewrite import plan, rewrite
from keras_ic.surgery.statistics import calibrate, recalibrate

__all__ = [
    "Change",
    "Plan",
    "Site",
    "Skip",
    "calibrate",
    "fold",
    "plan",
    "plan_fold",
    "recalibrate",
    "rewrite",
]
