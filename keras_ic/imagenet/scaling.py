"""What a training would take on more devices, from numbers measured on one: arithmetic, and no
measurement.
"""

import dataclasses

from keras_ic.utils.validation import checked_int, checked_real


@dataclasses.dataclass(frozen=True)
class Scaling:
    """The expected course of a training on some devices.

    Attributes:
        devices: Integer.
        step_seconds: Float, from step to step.
        exchange_seconds: Float, the part of it that the all-reduces take.
        input_seconds: Float, what the input of a machine takes for its part of a batch, beside the
            step.
        images_per_second: Float, on all devices.
        efficiency: Float, these against as many times the images of one device without exchange and
            input.
        hours: Float, of all epochs, without tests.
        limit: `"compute"`, `"exchange"` or `"input"`, whichever takes longest.
    """

    devices: int
    step_seconds: float
    exchange_seconds: float
    input_seconds: float
    images_per_second: float
    efficiency: float
    hours: float
    limit: str


def scale(
    machines: int,
    devices_per_machine: int,
    share: int,
    device_seconds: float,
    exchanged: int,
    inside: float,
    between: float,
    input_per_second: float,
    images: int = 1_281_167,
    epochs: int = 90,
) -> Scaling:
    """Expected step, hours and efficiency of data-parallel training.

    A ring all-reduce sends `2 (n - 1) / n` times the bytes through every link: first between the
    devices of a machine, then between machines. It follows the backward pass, as in
    `keras_ic.distribution`, and does not overlap with it. The input runs beside the step.

    Args:
        machines: Integer above 0.
        devices_per_machine: Integer above 0.
        share: Integer above 0, images of a device in a step.
        device_seconds: Float above 0, the step of one device alone with that share, as `keras-ic
            train --synthetic` measures.
        exchanged: Integer above 0, bytes of gradients and statistics, as `keras-ic train --dry-run`
            says.
        inside: Float above 0, bytes a second of the links between the devices of a machine.
        between: Float above 0, bytes a second of the network link of a machine.
        input_per_second: Float above 0, images a second that a machine's input gives, as
            `benchmarks/imagenet.py` measures.
        images: Integer above 0, of an epoch. Defaults to `1281167`, ImageNet's.
        epochs: Integer above 0. Defaults to `90`.

    Returns:
        A `Scaling`.

    Raises:
        ValueError: For a number that the above excludes.

    Example:

    ```python
    from keras_ic.imagenet.scaling import scale

    one = scale(1, 1, 100, 0.1, 1, inside=1.0, between=1.0, input_per_second=1e9)
    assert one.exchange_seconds == 0 and one.efficiency == 1 and one.limit == "compute"
    ```

    Reference: Patarasuk and Yuan, 2009, Bandwidth optimal all-reduce algorithms for clusters of
    workstations.
    """
    for name, number in (
        ("machines", machines),
        ("devices_per_machine", devices_per_machine),
        ("share", share),
        ("exchanged", exchanged),
    ):
        checked_int(name, number, "an integer above 0", lambda value: value > 0)
    speeds = {
        "device_seconds": device_seconds,
        "inside": inside,
        "between": between,
        "input_per_second": input_per_second,
    }
    for name, speed in speeds.items():
        checked_real(name, speed, "a number above 0", lambda value: value > 0)
    devices = machines * devices_per_machine
    exchange = (
        2
        * exchanged
        * (
            (devices_per_machine - 1) / devices_per_machine / inside
            + (machines - 1) / machines / between
        )
    )
    feed = share * devices_per_machine / input_per_second
    step = max(device_seconds + exchange, feed)
    limit = (
        "input"
        if feed > device_seconds + exchange
        else "exchange"
        if exchange > device_seconds
        else "compute"
    )
    rate = share * devices / step
    return Scaling(
        devices,
        step,
        exchange,
        feed,
        rate,
        device_seconds / step,
        images * epochs / rate / 3600,
        limit,
    )
