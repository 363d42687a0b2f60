"""Rewriting a model into its IC form: read the graph, plan, build; and the moving statistics of the result."""

from keras_ic.surgery.build import rewrite
from keras_ic.surgery.plan import Change, Plan, Skip, plan
from keras_ic.surgery.policy import Site
from keras_ic.surgery.statistics import calibrate, recalibrate

__all__ = ["Change", "Plan", "Site", "Skip", "calibrate", "plan", "recalibrate", "rewrite"]
