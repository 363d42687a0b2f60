"""Affine maps in front of an EinsumDense: which of its kernel's axes take up the scale, and which
bias the shift becomes.
"""

import numpy as np

from keras_ic.surgery.maps import AffineMap


def letters(layer) -> tuple[str, str, str]:
    """The letters of the axes of input, kernel and output; dots stand for axes that the equation
    leaves open.
    """
    inputs, output = layer.equation.replace(" ", "").split("->")
    given, kernel = inputs.split(",")
    return given, kernel, output


def bias_letters(layer) -> str:
    """The axes of the bias; of the one that a layer without a bias gets, where it has none."""
    return layer.bias_axes or letters(layer)[2].rstrip(".")[-1]


def bias_axis(layer, rank: int) -> int:
    """The axis, from 0, of an output of this rank along which the bias runs that a layer without a
    bias gets.
    """
    return _places(letters(layer)[2], rank).index(bias_letters(layer))


def takes_input(layer, given: AffineMap) -> bool:
    """Whether `layer(scale * x + shift)` is again such a layer, with a bias if it has none."""
    inputs, kernel, output = letters(layer)
    places = _places(inputs, given.scale.ndim + 1)
    if not all(places[axis] in kernel for axis in given.axes):
        return False
    if not np.any(given.shift):
        return True
    # Where the layer adds up values that its kernel does not weigh, their number would count.
    if any(letter not in kernel + output for letter in _named(inputs)):
        return False
    return all(letter in bias_letters(layer) for letter in output if letter in kernel)


def absorb_input(layer, weights: dict, given: AffineMap) -> None:
    """Changes `weights` to those of `layer(scale * x + shift)`."""
    inputs, letters_of_kernel, output = letters(layer)
    kernel = weights["kernel"]
    if np.any(given.shift):
        added = _shift_behind(layer, kernel, given)
        first = min(_named(output).index(letter) for letter in bias_letters(layer))
        behind = given.scale.ndim + 1 - len(_named(inputs)) if output.endswith(".") else 0
        weights["bias"] = weights["bias"] + added.reshape(*added.shape[first:], *[1] * behind)
    present = [letter for letter in letters_of_kernel if letter in inputs]
    sizes = {
        letter: size
        for letter, size in zip(letters_of_kernel, kernel.shape, strict=True)
        if letter in present
    }
    factor = np.einsum(
        f"{_named(inputs)}->{''.join(present)}", _on_letters(inputs, sizes, given.scale)
    )
    shape = [sizes.get(letter, 1) for letter in letters_of_kernel]
    weights["kernel"] = kernel * factor.astype(kernel.dtype).reshape(shape)


def _places(term: str, rank: int) -> list[str]:
    """The letter of each axis of a tensor of this rank, a dot for each that the equation leaves
    open.
    """
    head, _, tail = term.partition("...")
    if "..." not in term:
        return list(term)
    return [*head, *"." * (rank - len(head) - len(tail)), *tail]


def _named(term: str) -> str:
    return term.replace(".", "")


def _on_letters(inputs: str, sizes: dict, array: np.ndarray) -> np.ndarray:
    """The array with one axis a letter of the input, of the kernel's size where the kernel has the
    letter.
    """
    places = _places(inputs, array.ndim + 1)
    kept = [size for letter, size in zip(places, (1, *array.shape), strict=True) if letter != "."]
    return np.broadcast_to(array.reshape(kept), [sizes.get(letter, 1) for letter in _named(inputs)])


def _shift_behind(layer, kernel: np.ndarray, given: AffineMap) -> np.ndarray:
    """What the shift of the input adds to the output: one axis a letter of the output, of size 1
    where it is the same all along.
    """
    inputs, letters_of_kernel, output = letters(layer)
    sizes = dict(zip(letters_of_kernel, kernel.shape, strict=True))
    shift = _on_letters(inputs, sizes, given.shift)
    return np.einsum(
        f"{_named(inputs)},{letters_of_kernel}->{_named(output)}", shift, kernel.astype("float64")
    )
