"""The page store against a plain list."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdxreclaim.engine.pages import BLOCK_PAGES, PageStore

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
    st.tuples(st.just("load"), spans, st.binary(min_size=PAGES, max_size=PAGES)),
    st.tuples(st.just("load sorted"), spans, st.sampled_from(CLASSES)),
    st.tuples(st.just("translate"), spans, st.sampled_from(TABLES)),
    st.tuples(st.just("plain_translate"), spans, st.sampled_from(TABLES)),
    st.tuples(st.just("count"), spans, st.sampled_from(CLASSES)),
)


@given(st.lists(operations, max_size=25))
@settings(max_examples=200)
def test_it_is_a_list_of_states(todo: list[tuple[str, object, object]]) -> None:
    store, plain, odd = PageStore(PAGES, 7), [7] * PAGES, set[int]()
    for what, where, value in todo:
        if isinstance(where, int):
            assert isinstance(value, int)
            odd.add(where)
            if what == "set":
                store[where] = plain[where] = value
            else:
                store.isolate(where)
            continue
        assert isinstance(where, tuple)
        start, stop = where
        reached = [n for n in range(start, stop) if what != "plain_translate" or n not in odd]
        if what == "fill":
            assert isinstance(value, int)
            store.fill(start, stop, value)
            plain[start:stop] = [value] * (stop - start)
        elif what.startswith("load"):
            assert isinstance(value, bytes)
            data = (value * 2)[: stop - start]
            store.load(start, data, None if what == "load" else value)
            plain[start:stop] = data
        elif what == "count":
            assert isinstance(value, bytes)
            expected = Counter(value[plain[n]] for n in reached)
            assert +store.count(start, stop, value) == expected
            some = Counter(value[plain[n]] for n in reached if n not in odd)
            assert +store.plain_count(start, stop, value) == some
            found = [n for n in reached if n not in odd and value[plain[n]] == 1]
            assert store.plain_find(start, stop, value, 3) == found[:3]
            possible = store.plain_possible(start, stop)
            assert {plain[n] for n in reached if n not in odd} <= possible
        else:
            assert isinstance(value, bytes)
            getattr(store, what)(start, stop, value)
            for n in reached:
                plain[n] = value[plain[n]]
        assert list(store.states(0, PAGES)) == plain
    assert [store[n] for n in range(PAGES)] == plain
    assert store.odd(0, PAGES) == sorted(odd)


def test_counts_across_chunks_and_blocks_are_right() -> None:
    size = BLOCK_PAGES + 150_000
    data = Random(3).randbytes(size)
    store = PageStore(size + 10, 0)
    store.load(5, data)
    histogram = [data.count(state) for state in range(256)]
    for classes in CLASSES:
        counted = store.plain_count(0, size + 10, classes)
        expected = Counter(dict.fromkeys(range(256), 0))
        for state in range(256):
            expected[classes[state]] += histogram[state]
        expected[classes[0]] += 10
        assert +counted == +expected


def test_pages_that_are_alike_are_one_run_again() -> None:
    store = PageStore(1 << 40, 1)
    assert store.run_count == 1
    store.fill(10, 20, 2)
    assert store.run_count == 3
    store.plain_translate(0, 10, bytes([2]) * 256)
    store.plain_translate(20, 1 << 40, bytes([2]) * 256)
    assert store.run_count == 1
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
        store.plain_count(3, 2, bytes(256))
    assert PageStore(0, 0).states(0, 0) == b""
