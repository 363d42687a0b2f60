"""What makes two searches the same search."""

import dataclasses
import json
import pathlib
from typing import Any

from keras_ic import saving
from keras_ic.applications.orders import ORDERS
from keras_ic.training.config import TrainingConfig
from keras_ic.training.record import check_same
from keras_ic.tuning.space import CHOSEN, SearchSpace
from keras_ic.utils import folder_lock
from keras_ic.utils.json_files import checking_content, read_json
from keras_ic.utils.lazy_imports import keras_tuner
from keras_ic.utils.validation import checked_bool, checked_choice, positive_int

NAME = "search.json"
TUNERS = ("random", "bayesian", "hyperband", "grid")
OWN = (folder_lock.NAME, "log")  # what a search has in its folder before its description
ADVICE = "restore it from a copy, or choose another folder"


@dataclasses.dataclass(frozen=True)
class Search:
    """A search: the recipe that all trials share, what they choose from, and who chooses; see
    `search`.
    """

    recipe: TrainingConfig
    space: SearchSpace
    tuner: str
    trials: int
    seeds: int
    prune: bool

    def __post_init__(self):
        if not isinstance(self.recipe, TrainingConfig):
            raise ValueError(
                "`recipe` must be a `keras_ic.training.TrainingConfig`. Received:"
                f" recipe={self.recipe!r}"
            )
        if not isinstance(self.space, SearchSpace):
            raise ValueError(
                f"`space` must be a `SearchSpace` or None. Received: space={self.space!r}"
            )
        if self.space.learning_rate is None:
            raise ValueError(
                "`learning_rate` of the space must be one or two numbers above 0. Received:"
                " learning_rate=None"
            )
        # An IC order where there is one: the others take from a recipe what is about IC layers.
        object.__setattr__(
            self, "recipe", dataclasses.replace(self.recipe, order=_order(self.space))
        )
        if self.recipe.is_in_memory and not self.recipe.validation:
            raise ValueError(
                "`validation` must leave out a part of the training images, for the trials to be"
                " judged on; the test set is read once, at the end. Received:"
                f" validation={self.recipe.validation}"
            )
        checked_choice("tuner", self.tuner, TUNERS)
        for name in ("trials", "seeds"):
            positive_int(name, getattr(self, name))
        if checked_bool("prune", self.prune) and self.tuner == "hyperband":
            raise ValueError(
                "`prune` is for the other tuners; Hyperband stops poor trials itself. Received:"
                " prune=True with tuner='hyperband'"
            )

    def configuration(self, values: dict[str, Any]) -> TrainingConfig:
        """The configuration of a trial by the values of its hyperparameters, with the seed of its
        first run.
        """
        hp = keras_tuner.HyperParameters()
        hp.values = dict(values)
        return TrainingConfig(**{**self.recipe.to_dict(), **self.space.choose(hp)})

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, without what the space chooses in place of the recipe."""
        recipe = {
            name: value for name, value in self.recipe.to_dict().items() if name not in CHOSEN
        }
        values = {name: getattr(self, name) for name in ("tuner", "trials", "seeds", "prune")}
        return {**values, "recipe": recipe, "space": self.space.to_dict()}


def read(folder: pathlib.Path) -> Search:
    """The search of a folder."""
    path = folder / NAME
    if not path.exists():
        raise ValueError(
            f"There is no search here; give the folder that holds a {NAME}. Received:"
            f" {str(folder)!r}"
        )
    values = read_json(path, ("recipe", "space"), ADVICE)
    with checking_content(path, advice=ADVICE):
        space = SearchSpace(**values["space"])
        recipe = TrainingConfig(**values["recipe"], order=_order(space))
        return Search(**{**values, "recipe": recipe, "space": space})


def _order(space: SearchSpace) -> str:
    return next((order for order in space.orders if ORDERS[order].has_ic), space.orders[0])


def check(folder: pathlib.Path, search: Search) -> None:
    """Refuses the command of a worker that is not its chief's, but for the number of trials, which
    is the chief's alone.
    """
    was, now = _flat(read(folder).to_dict()), _flat(search.to_dict())
    check_same(folder, was, {**now, "trials": was["trials"]}, "search")


def claim(folder: pathlib.Path, search: Search, is_concluded: bool = False) -> None:
    """Makes a folder that this process has locked that of this search, or finds that it is; with
    another number of trials, too, as long as it is not concluded.
    """
    if (folder / NAME).exists():
        was, now = _flat(read(folder).to_dict()), _flat(search.to_dict())
        if [name for name in now if was.get(name) != now[name]] != ["trials"]:
            check_same(folder, was, now, "search")
        elif is_concluded:
            end = (
                "another number of trials needs another folder, since the test set has been read"
                " for the best of these"
            )
            raise ValueError(
                f"This search of {was['trials']} trials has come to its end; {end}. Received:"
                f" trials={now['trials']} for {str(folder)!r}"
            )
        else:
            _write(folder, search)
        return
    if folder.exists() and any(path.name not in OWN for path in folder.iterdir()):
        raise ValueError(
            "This folder holds other files, but no search; choose another folder. Received:"
            f" {str(folder)!r}"
        )
    _write(folder, search)


def _write(folder: pathlib.Path, search: Search) -> None:
    with saving.replacing(folder / NAME) as new:
        new.write_text(json.dumps(search.to_dict(), indent=1) + "\n", encoding="utf-8")


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    inner = {
        name: value
        for each in values.values()
        if isinstance(each, dict)
        for name, value in each.items()
    }
    own = {name: value for name, value in values.items() if not isinstance(value, dict)}
    return json.loads(json.dumps({**inner, **own}))
