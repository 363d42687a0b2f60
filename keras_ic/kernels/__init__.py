"""What the layer computes, one small file a backend.

`reference` is the definition, in plain `keras.ops`; it serves every backend that has no file of its
own, and every other file is tested against it on the same mask. All of them have the same four
functions:

- `draw(shape, rate, seed, first)`: a boolean tensor, False where a value is dropped. `seed` is what
  `keras.random.SeedGenerator.next()` gives: the layer's seed and its step counter. On every replica
  of a distribution the draw is another one. `first` matters on TensorFlow alone: the number of
  examples of the global batch before those here, or None.
- `moments(x, axis, valid)`: mean, biased variance and number of values of every channel, all
  float32 or wider. `valid` is a boolean tensor that broadcasts against `x`, or None.
- `normalize(x, mean, variance, gamma, beta, keep, rate, axis, epsilon)`: the given statistics
  applied, then the mask. What the mask keeps is divided by `1 - rate`.
- `train(x, gamma, beta, keep, rate, axis, epsilon)`: `moments` and `normalize` of an unmasked batch
  in one go; returns `(y, mean, variance)`.

`gamma`, `beta` and `keep` may be None. Results have the dtype of `x`; sums are taken in float32 at
least.
"""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_ic.kernels.tensorflow import draw, moments, normalize, train
elif keras.backend.backend() == "jax":
    from keras_ic.kernels.jax import draw, moments, normalize, train
elif keras.backend.backend() == "torch":
    from keras_ic.kernels.torch import draw, moments, normalize, train
else:
    from keras_ic.kernels.reference import draw, moments, normalize, train

__all__ = ["draw", "moments", "normalize", "train"]
