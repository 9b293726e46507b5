"""The page store against a plain list."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdxreclaim.engine.pages import PageStore

PAGES = 40
TABLES = [
    bytes(range(256)),
    bytes(reversed(range(256))),
    bytes(i & 0xF0 for i in range(256)),
    bytes(i * 7 % 256 for i in range(256)),
]
CLASSES = [
    bytes(i % 2 for i in range(256)),
    bytes(i % 3 for i in range(256)),
    bytes(i > 250 for i in range(256)),
    bytes(256),
    bytes(range(256)),
]
spans = st.tuples(st.integers(0, PAGES), st.integers(0, PAGES)).map(sorted).map(tuple)
states = st.integers(0, 255)
operations = st.one_of(
    st.tuples(st.just("set"), st.integers(0, PAGES - 1), states),
    st.tuples(st.just("isolate"), st.integers(0, PAGES - 1), states),
    st.tuples(st.just("fill"), spans, states),
    st.tuples(st.just("translate"), spans, st.sampled_from(TABLES)),
    st.tuples(st.just("translate_runs"), spans, st.sampled_from(TABLES)),
    st.tuples(st.just("count"), spans, st.sampled_from(CLASSES)),
)


@given(st.lists(operations, max_size=25))
@settings(max_examples=200)
def test_it_is_a_list_of_states(todo: list[tuple[str, object, object]]) -> None:
    store, plain, singles = PageStore(PAGES, 7), [7] * PAGES, set[int]()
    for what, where, value in todo:
        if isinstance(where, int):
            assert isinstance(value, int)
            singles.add(where)
            if what == "set":
                store[where] = plain[where] = value
            else:
                store.isolate(where)
            continue
        assert isinstance(where, tuple)
        start, stop = where
        reached = [n for n in range(start, stop) if what != "translate_runs" or n not in singles]
        if what == "fill":
            assert isinstance(value, int)
            store.fill(start, stop, value)
            plain[start:stop] = [value] * (stop - start)
        elif what == "count":
            assert isinstance(value, bytes)
            expected = Counter(value[plain[n]] for n in reached)
            assert +store.count(start, stop, value) == expected
            some = Counter(value[plain[n]] for n in reached if n not in singles)
            assert +store.count_runs(start, stop, value) == some
            found = [n for n in reached if n not in singles and value[plain[n]] == 1]
            assert store.first_of_runs(start, stop, value, 3) == found[:3]
            for begin, end, state in store.runs(start, stop):
                assert {plain[n] for n in range(begin, end) if n not in singles} <= {state}
        else:
            assert isinstance(value, bytes)
            getattr(store, what)(start, stop, value)
            for n in reached:
                plain[n] = value[plain[n]]
        assert [store[n] for n in range(PAGES)] == plain
    assert store.singles(0, PAGES) == sorted(singles)


def test_pages_that_are_alike_are_one_run_again() -> None:
    store = PageStore(1 << 40, 1)
    assert len(list(store.runs(0, 1 << 40))) == 1
    store.fill(10, 20, 2)
    assert len(list(store.runs(0, 1 << 40))) == 3
    store.translate_runs(0, 10, bytes([2]) * 256)
    store.translate_runs(20, 1 << 40, bytes([2]) * 256)
    assert len(list(store.runs(0, 1 << 40))) == 1
    assert store[1 << 39] == 2


def test_a_page_outside_is_refused() -> None:
    store = PageStore(4, 0)
    for page in (-1, 4):
        with pytest.raises(IndexError):
            store[page]
        with pytest.raises(IndexError):
            store[page] = 1
    with pytest.raises(IndexError):
        store.fill(2, 5, 1)
    with pytest.raises(IndexError):
        store.count_runs(3, 2, bytes(256))
    assert list(PageStore(0, 0).runs(0, 0)) == []
    assert PageStore.of([(2, 7), (3, 9)]).count(0, 5, bytes(range(256))) == {7: 2, 9: 3}
