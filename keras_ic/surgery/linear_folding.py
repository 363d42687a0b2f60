"""Folding a per-channel affine map into the weights of a linear layer: `scale * layer(x) + shift`
and `layer(scale * x + shift)`.

Everything here is exact linear algebra on the weights as a dictionary by name (kernels, and
`bias`), and knows nothing of graphs. What a kernel does is its `Equation` of
`keras_ic.surgery.layer_traits`. Kernels stay in their precision, which a factor costs one rounding;
sums are taken in float64.
"""

import itertools
import math

import numpy as np
from keras import layers

from keras_ic.surgery.affine_map import AffineMap
from keras_ic.surgery.layer_traits import (
    Equation,
    channel_axis,
    equations_of,
    has_linear_activation,
    inside_time,
    is_linear,
    time_axes,
    traits_of,
)

WINDOW = "WXYZ"


def as_array(variable) -> np.ndarray:
    """The value of a weight in float64."""
    return np.asarray(variable.numpy(), "float64")


def has_bias(layer) -> bool:
    """Whether the linear layer has a bias."""
    return (
        layer.bias_axes is not None
        if isinstance(layer, layers.EinsumDense)
        else bool(layer.use_bias)
    )


def bias_changes(layer) -> dict:
    """What to change in the configuration of a bias-free linear layer so that it has a bias of one
    value an output channel.
    """
    if isinstance(layer, layers.EinsumDense):
        return {"bias_axes": "".join(_bias_terms(layer))}
    return {"use_bias": True}


def size_of_new_bias(operation, shape: tuple) -> int:
    """How many values the bias has that a bias-free linear layer gets, be it inside
    `TimeDistributed`; `shape` is that of its output.
    """
    layer, ahead = inside_time(operation), time_axes(operation)
    terms = _placed(equations_of(layer)[-1].outputs, len(shape) - ahead)
    (term,) = _bias_terms(layer)
    return shape[terms.index(term) + ahead]


def takes_output(layer, axis: int, rank: int, fused: bool = False) -> bool:
    """Whether `scale * layer(x) + shift` along `axis` of an output of this rank is again such a
    layer, with a bias where it had none.

    With `fused`, its activation is left aside.
    """
    if (
        not is_linear(layer)
        or not (fused or has_linear_activation(layer))
        or axis != channel_axis(layer, rank)
    ):
        return False
    equation = equations_of(layer)[-1]
    term = _placed(equation.outputs, rank)[axis]
    biased = not has_bias(layer) or term in _bias_terms(layer)
    return biased and set(term) <= set("".join(equation.axes))


def takes_input(layer, given: AffineMap) -> bool:
    """Whether `layer(scale * x + shift)` is again such a layer, with a bias if it has none."""
    if not is_linear(layer):
        return False
    equation = equations_of(layer)[0]
    kernel = set("".join(equation.axes))
    terms = _placed(equation.inputs, given.scale.ndim + 1)
    if not all(set(terms[axis]) <= kernel for axis in given.axes):
        return False
    if not given.shifts:
        return True
    if not shifts_alike(layer):
        return False
    # Where the layer adds up values that its kernel does not weigh, their number would count.
    outputs, bias = set(_named(equation.outputs)), set("".join(_bias_terms(layer)))
    if not set(_named(equation.inputs)) <= kernel | outputs:
        return False
    return len(equations_of(layer)) > 1 or kernel & outputs <= bias


def shifts_alike(layer) -> bool:
    """Whether a shift of its input is the same shift at every place of its output.

    It is not where the layer puts zeros around its input, for the zeros are not shifted; nor in
    transposed convolutions, whose outputs near the border, and between strides, meet fewer weights.
    """
    traits = traits_of(layer)
    padded = (
        getattr(layer, "padding", "valid") != "valid"
        and math.prod(getattr(layer, "kernel_size", ())) != 1
    )
    return traits is not None and traits.is_dense and not padded


def fold_input(layer, weights: dict, given: AffineMap) -> None:
    """Changes `weights` to those of `layer(scale * x + shift)`."""
    first, *further = equations_of(layer)
    shift = _through(first, weights, given)
    for equation in further:
        rank = given.scale.ndim + 1
        moved = AffineMap.along(channel_axis(layer, rank), rank, np.ones(1), shift.ravel())
        shift = _through(equation, weights, moved)
    if not given.shifts:
        return
    terms, outputs = _bias_terms(layer), equations_of(layer)[-1].outputs
    named = [term for term in outputs if term not in (".", "...")]
    if not isinstance(layer, layers.EinsumDense):
        weights["bias"] = weights["bias"] + shift.ravel()
        return
    # The bias runs from its first axis to the last of the output.
    kept = shift.shape[min(named.index(term) for term in terms) :]
    inputs = len(_named(equations_of(layer)[0].inputs))
    open_axes = given.scale.ndim + 1 - inputs if outputs[-1] == "..." else 0
    weights["bias"] = weights["bias"] + shift.reshape(*kept, *[1] * open_axes)


def fold_output(layer, weights: dict, scale: np.ndarray, shift: np.ndarray) -> None:
    """Changes `weights` to those of `scale * layer(x) + shift`."""
    equation = equations_of(layer)[-1]
    kernel = weights[equation.kernel]
    letters, sizes = _letters(equation, kernel)
    term = equation.outputs[1 if equation.outputs[0] == "." else -1]
    factor = scale.reshape([sizes[letter] for letter in term])
    weights[equation.kernel] = _scaled(kernel, letters, sizes, term, factor)
    if "bias" in weights:
        weights["bias"] = weights["bias"] * scale + shift


def multiplications(layer, inputs: int, outputs: int, kernels: list[tuple[int, ...]]) -> int:
    """How many multiplications a call of a linear layer takes, for these numbers of values that it
    reads and gives, and these shapes of its kernels.
    """
    total = 0
    traits = traits_of(layer)
    assert traits is not None
    for equation, shape in reversed(list(zip(equations_of(layer), kernels, strict=True))):
        letters, sizes = _letters(equation, np.broadcast_to(0, shape))
        met = set(_named(equation.outputs if traits.is_dense else equation.inputs))
        values = outputs if traits.is_dense else inputs
        total += values * math.prod(sizes[letter] for letter in set(letters) - met)
        # What one kernel reads is what the one before it gives.
        given = math.prod(sizes[letter] for letter in _named(equation.outputs) if letter in sizes)
        read = math.prod(sizes[letter] for letter in _named(equation.inputs) if letter in sizes)
        outputs = outputs // given * read
    return total


def _bias_terms(layer) -> tuple[str, ...]:
    """The terms of the output along which the bias runs; of the one that a layer without a bias
    gets, where it has none.
    """
    if isinstance(layer, layers.EinsumDense) and layer.bias_axes:
        return tuple(layer.bias_axes)
    return tuple(term for term in equations_of(layer)[-1].outputs if term not in (".", "..."))[-1:]


def _placed(terms: tuple[str, ...], rank: int) -> list[str]:
    """The term of each axis of a tensor of this rank, a dot for each that the kernel does not run
    along.
    """
    if "..." not in terms:
        return list(terms)
    place = terms.index("...")
    return [*terms[:place], *"." * (rank - len(terms) + 1), *terms[place + 1 :]]


def _named(terms: tuple[str, ...]) -> str:
    """The letters of the terms."""
    return "".join(terms).replace(".", "")


def _letters(equation: Equation, kernel: np.ndarray) -> tuple[str, dict[str, int]]:
    """The letters of the kernel's axes, with those of its window, and the size of each."""
    window = kernel.ndim - len(equation.axes) + 1 if "*" in equation.axes else 0
    terms = [*WINDOW[:window], *(term for term in equation.axes if term != "*")]
    sizes = dict(equation.sizes)
    for term, size in zip(terms, kernel.shape, strict=True):
        for letter in term:
            known = math.prod(sizes[other] for other in term if other in sizes)
            sizes.setdefault(letter, size // known)
    return "".join(terms), sizes


def _scaled(kernel, letters: str, sizes: dict, term: str, factor: np.ndarray) -> np.ndarray:
    """The kernel times a factor whose axes are the letters of `term`."""
    present = "".join(letter for letter in letters if letter in term)
    factor = np.einsum(f"{term}->{present}", factor)
    factor = factor.reshape([sizes[letter] if letter in term else 1 for letter in letters])
    split = kernel.reshape([sizes[letter] for letter in letters])
    return (split * factor.astype(kernel.dtype)).reshape(kernel.shape)


def _through(equation: Equation, weights: dict, given: AffineMap) -> np.ndarray:
    """Scales the kernel, and returns what the shift of its input adds to its output: one axis a
    term of the output, of size 1 where it is the same all along.
    """
    kernel = weights[equation.kernel]
    letters, sizes = _letters(equation, kernel)
    terms = _placed(equation.inputs, given.scale.ndim + 1)
    named = _named(equation.inputs)

    def on_letters(array: np.ndarray) -> np.ndarray:
        """The array with one axis a letter of the input, of the kernel's size where the kernel has
        the letter.
        """
        shape: list[int] = []
        for term, size in zip(terms, (1, *array.shape), strict=True):
            if term != ".":
                shape += [sizes[letter] for letter in term] if size > 1 else [1] * len(term)
        return np.broadcast_to(array.reshape(shape), [sizes.get(letter, 1) for letter in named])

    outputs = _named(equation.outputs)
    added = np.zeros(1)
    if given.shifts:
        split = kernel.reshape([sizes[letter] for letter in letters]).astype("float64")
        added = np.einsum(f"{named},{letters}->{outputs}", on_letters(given.shift), split)
        given_terms = [term for term in equation.outputs if term not in (".", "...")]
        ends: np.ndarray = np.cumsum([0, *map(len, given_terms)])
        added = added.reshape(
            [math.prod(added.shape[start:end]) for start, end in itertools.pairwise(ends)]
        )
    kept = "".join(letter for letter in named if letter in letters)
    factor = np.einsum(f"{named}->{kept}", on_letters(given.scale))
    weights[equation.kernel] = _scaled(kernel, letters, sizes, kept, factor)
    return added
