"""Frozen classes of named values, for what every start needs.

A frozen dataclass takes 0.3 to 1.2 ms to make, since its methods are written as text and compiled
anew at each start, and `check` needs fifteen of them.  What is imported later may be a dataclass.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn, Self, dataclass_transform


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """What a keyword-only frozen dataclass is, by the annotations of a class right below this one.

    >>> class Size(Record):
    ...     width: int
    ...     height: int = 1
    >>> Size(width=2)
    Size(width=2, height=1)
    >>> Size(width=2)._replace(height=3) == Size(width=2, height=3)
    True
    """

    _defaults: ClassVar[dict[str, Any]]
    """Every field in order; ``None`` where there is no default."""
    _required: ClassVar[frozenset[str]]

    def __init_subclass__(cls) -> None:
        cls._defaults = {name: getattr(cls, name, None) for name in cls.__annotations__}
        cls._required = frozenset(name for name in cls._defaults if not hasattr(cls, name))

    def __init__(self, **values: Any) -> None:  # noqa: ANN401  (each field has its own type)
        wrong = (self._required - values.keys()) | (values.keys() - self._defaults.keys())
        if wrong:
            raise TypeError(f"{type(self).__qualname__}: {sorted(wrong)} missing, or no field")
        vars(self).update(self._defaults | values)

    def _replace(self, **changes: Any) -> Self:  # noqa: ANN401
        """Return it with other values, as the method of a NamedTuple does."""
        return type(self)(**(vars(self) | changes))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__qualname__} is frozen: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__qualname__} is frozen: {name}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__qualname__}({shown})"
