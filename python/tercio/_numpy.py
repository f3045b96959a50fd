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

    Arrays of a subclass are joined into one of that subclass, with its masks, units and other attributes.

    Warns
    -----
    RuntimeWarning
        If they are arrays that don't fit together, or would not be of their kind any more; the list comes back.
    """
    if not results or not is_array(results[0]):
        return results
    try:
        return _join(results)
    except Exception as error:  # a subclass may join in its own way, and so raise anything
        why = str(error) or type(error).__name__
    from tercio._warn import warn

    warn(f"The results can't be concatenated ({why}); they are returned as a list", RuntimeWarning)
    return results


def _join(results: list[Any]) -> Any:
    import numpy

    np: Any = numpy

    if not all(is_array(result) for result in results):
        raise TypeError("not all of them are arrays")
    kinds = {np.ndarray if type(result) is np.memmap else type(result) for result in results}
    if kinds == {np.ndarray}:  # joined memory-mapped arrays are in no file
        return np.concatenate([np.asarray(result) for result in results])
    if any(issubclass(kind, np.ma.MaskedArray) for kind in kinds):
        return _join_masked(results, kinds)
    kind = next(iter(kinds))
    own = [kind for kind in kinds if kind.__array_function__ is not np.ndarray.__array_function__]
    if own:
        joined = np.concatenate(results)  # which asks them
        if type(joined) not in own:
            raise TypeError(f"that would make {type(joined).__name__} of {_names(kinds)}")
        return joined
    if len(kinds) > 1:
        raise TypeError(f"they are {_names(kinds)}")
    # numpy itself would make plain arrays of them, or lose what they hold beside the data.
    attributes = _common_attributes(results, kind, np.ndarray, ())
    joined = np.concatenate([result.view(np.ndarray) for result in results]).view(kind)
    _set_attributes(joined, attributes)
    return joined


def _join_masked(results: list[Any], kinds: set[Any]) -> Any:
    import numpy

    np: Any = numpy

    masked = [result for result in results if isinstance(result, np.ma.MaskedArray)]
    kind = type(masked[0])
    if not kinds <= {kind, np.ndarray}:
        raise TypeError(f"they are {_names(kinds)}")
    attributes = _common_attributes(masked, kind, np.ma.MaskedArray, np.ma.MaskedArray(0).__dict__)
    joined = np.ma.concatenate(results)
    if type(joined) is not kind:
        raise TypeError(f"that would make {type(joined).__name__} of {_names(kinds)}")
    _set_attributes(joined, attributes)
    fill, of_data = masked[0].fill_value, masked[0]._optinfo
    if not all(_is_same(of_data, result._optinfo) for result in masked):
        raise TypeError("attributes of the masked arrays differ between them")
    joined._optinfo.update(of_data)
    if all(np.array_equal(result.fill_value, fill) for result in masked):
        joined.fill_value = fill
    if all(result.hardmask for result in masked):
        joined.harden_mask()
    return joined


def _common_attributes(results: list[Any], kind: type, base: type, known: Any) -> dict[str, Any]:
    """What all results hold beside what `base` has, if it is the same for each."""
    between = kind.__mro__[: kind.__mro__.index(base)]
    if any(cls.__dict__.get("__slots__") for cls in between):
        raise TypeError(f"{kind.__name__} has __slots__, whose meaning is unknown")
    all_attributes = [
        {name: value for name, value in getattr(result, "__dict__", {}).items() if name not in known}
        for result in results
    ]
    first = all_attributes[0]
    for other in all_attributes:
        if other.keys() != first.keys() or not all(_is_same(first[name], other[name]) for name in first):
            raise TypeError(f"attributes of {kind.__name__} differ between them, or can't be compared")
    return first


def _is_same(one: Any, other: Any) -> bool:
    # An array may belong to the rows of its own piece, whatever its values are.
    return type(one) is type(other) and not is_array(one) and (one is other or bool(one == other))


def _set_attributes(joined: Any, attributes: dict[str, Any]) -> None:
    if attributes:
        joined.__dict__.update(attributes)


def _names(kinds: set[Any]) -> str:
    return " and ".join(sorted(kind.__name__ for kind in kinds))
