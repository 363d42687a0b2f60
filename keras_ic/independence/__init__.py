"""How independent the inputs of weight layers are, measured: correlation, mutual information,
whiteness, variance shift.
"""

from keras_ic.independence.measuring import measure
from keras_ic.independence.monitor import IndependenceMonitor
from keras_ic.independence.report import Input, Report, Shift

__all__ = ["IndependenceMonitor", "Input", "Report", "Shift", "measure"]
