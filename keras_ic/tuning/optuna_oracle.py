"""Optuna's tree-structured Parzen estimator as an oracle of Keras Tuner, so that all else of a
search stays as it is.
"""

from typing import Any

from keras_ic.utils.lazy_imports import needed

keras_tuner: Any = needed("keras_tuner", "keras-tuner", "tune")


class OptunaOracle(keras_tuner.Oracle):
    """Asks Optuna for the values of each trial.

    The study is made anew from the trials that are done, with a sampler seeded by their number: it
    has no state that could be lost.

    Reference: [Akiba et al., 2019](https://arxiv.org/abs/1907.10902), Optuna.
    """

    def __init__(self, **kwargs):
        self.optuna = needed("optuna", "optuna", "optuna")
        super().__init__(**kwargs)

    def populate_space(self, trial_id):
        """The values of a new trial."""
        optuna = self.optuna
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # else a line for each study
        study = optuna.create_study(
            direction="maximize" if self.objective.direction == "max" else "minimize",
            sampler=optuna.samplers.TPESampler(seed=self.seed + len(self.trials)),
        )
        optuna.logging.set_verbosity(level)
        distributions = {hp.name: self._distribution(hp) for hp in self.hyperparameters.space}
        for trial in self.trials.values():
            if trial.status == "COMPLETED":
                given = trial.hyperparameters.values
                known = {
                    hp.name: _index(hp, given[hp.name])
                    for hp in self.hyperparameters.space
                    if hp.name in given
                }
                study.add_trial(
                    optuna.trial.create_trial(
                        params=known,
                        distributions={name: distributions[name] for name in known},
                        value=float(trial.score),
                    )
                )
        asked = study.ask(distributions).params
        hps = keras_tuner.HyperParameters()
        for hp in self.hyperparameters.space:
            hps.merge([hp])
            if hps.is_active(hp):
                value = asked[hp.name]
                hps.values[hp.name] = hp.values[value] if _is_ordered(hp) else value
        return {"status": "RUNNING", "values": hps.values}

    def _distribution(self, hp):
        distributions, kind = self.optuna.distributions, type(hp).__name__
        if _is_ordered(hp):
            return distributions.IntDistribution(0, len(hp.values) - 1)
        if kind == "Choice":
            return distributions.CategoricalDistribution(hp.values)
        if kind == "Float":
            log = hp.sampling == "log"
            return distributions.FloatDistribution(
                hp.min_value, hp.max_value, log=log, step=None if log else hp.step
            )
        raise ValueError(f"A search space has choices and numbers alone. Received: {hp!r}")


def _is_ordered(hp) -> bool:
    """Whether it is a choice of numbers, which to Optuna is one of their indices, since its own
    choices have no order.
    """
    return bool(getattr(hp, "ordered", False))


def _index(hp, value):
    return list(hp.values).index(value) if _is_ordered(hp) else value
