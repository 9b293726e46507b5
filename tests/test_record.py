"""A `Record` is what a frozen keyword-only dataclass is."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass

import pytest

from tdxreclaim.record import Record


class Ours(Record):
    """A field with a default may stand before one without."""

    size: int = 1
    name: str
    words: tuple[str, ...] = ()

    @property
    def doubled(self) -> int:
        return 2 * self.size


@dataclass(frozen=True, kw_only=True)
class Theirs:
    size: int = 1
    name: str
    words: tuple[str, ...] = ()


@pytest.mark.parametrize("values", [{"name": "a"}, {"name": "a", "size": 3, "words": ("b",)}])
def test_it_shows_and_compares_as_a_dataclass_does(values: dict[str, object]) -> None:
    ours, theirs = Ours(**values), Theirs(**values)  # type: ignore[arg-type]
    assert vars(ours) == vars(theirs)
    assert list(vars(ours)) == list(vars(theirs))
    assert repr(ours).replace("Ours", "Theirs") == repr(theirs)
    assert hash(ours) == hash(theirs)
    assert ours == Ours(**values)  # type: ignore[arg-type]
    assert ours != theirs
    assert ours != Ours(name="other")


@pytest.mark.parametrize("values", [{}, {"size": 2}, {"name": "a", "weight": 1}])
def test_a_field_that_is_missing_or_unknown_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        Ours(**values)  # type: ignore[arg-type]


def test_it_is_frozen() -> None:
    ours = Ours(name="a")
    with pytest.raises(AttributeError):
        ours.size = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del ours.name
    with pytest.raises(AttributeError):
        ours.other = 1


def test_a_replaced_one_is_another() -> None:
    ours = Ours(name="a", size=3)
    assert ours._replace(size=4) == Ours(name="a", size=4)
    assert ours.size == 3
    assert ours._replace(size=4).doubled == 8
    with pytest.raises(TypeError):
        ours._replace(weight=1)


def test_it_is_copied_and_pickled() -> None:
    ours = Ours(name="a", size=3)
    assert copy.deepcopy(ours) == ours
    assert pickle.loads(pickle.dumps(ours)) == ours  # noqa: S301  (ours)
