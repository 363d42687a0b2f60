"""Tables as plain text."""

from collections.abc import Iterable, Sequence


def text(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The rows under the header, columns aligned to the left."""
    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
