"""What numpy arrays get in particular. Never imports numpy: who hands over an array has done so."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def is_array(value: object) -> bool:
    """Whether `value` is a numpy array."""
    numpy = sys.modules.get("numpy")
    # A half-imported numpy has no ndarray yet, and then nothing can be one.
    kind = getattr(numpy, "ndarray", None)
    return kind is not None and isinstance(value, kind)


def concatenate(results: list[Any]) -> Any:
    """Results of a map joined along the first axis, if they are arrays; else the list itself.

    Warns
    -----
    RuntimeWarning
        If they are arrays that don't fit together; the list comes back.
    """
    if not results or not is_array(results[0]):
        return results
    import numpy as np

    try:
        if all(is_array(result) for result in results):
            return np.concatenate(results)
        why = "not all of them are arrays"
    except (ValueError, TypeError) as error:
        why = str(error)
    from tercio._warn import warn

    warn(f"The results can't be concatenated ({why}); they are returned as a list", RuntimeWarning)
    return results
