"""Overlaps of two maps: a count of pairs, pixel by pixel."""

from collections import Counter

import numpy as np
import pytest

from fisa.evaluation.segment_overlaps import SegmentOverlaps


def pixel_by_pixel(first, second):
    return Counter(zip(first.ravel().tolist(), second.ravel().tolist()))


@pytest.mark.parametrize("dtypes", [(np.int32, np.int32), (np.int64, np.int32), (np.uint8, np.int64)], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (23, 31)])
def test_a_count_of_pairs(dtypes, shape):
    random = np.random.default_rng(0)
    # Runs of all lengths, values that are far apart, and in the first map of no order.
    first, second = (
        np.repeat(random.choice(values, 800), random.integers(1, 9, 800))[: shape[0] * shape[1]].reshape(shape)
        for values in ([200, 3, 0, 77], [0, 1, 5])
    )
    first, second = first.astype(dtypes[0]), second.astype(dtypes[1])
    overlaps = SegmentOverlaps.between(first, second)
    found = {
        (i, j): int(overlaps.shared[row, column])
        for row, i in enumerate(overlaps.first.tolist())
        for column, j in enumerate(overlaps.second.tolist())
    }
    expected = pixel_by_pixel(first, second)
    assert found == {pair: expected[pair] for pair in found} and expected.keys() <= found.keys()


def test_maps_that_lie_in_memory_another_way():
    first = np.arange(60).reshape(6, 10) // 7
    turned = SegmentOverlaps.between(first.T, first.T)
    assert np.array_equal(turned.shared, SegmentOverlaps.between(first, first).shared)


def test_negative_values_and_large_ones():
    overlaps = SegmentOverlaps.between(np.array([[-1, 2**40, 2**40]]), np.array([[2**40, -7, 2**40]]))
    assert overlaps.first.tolist() == [-1, 2**40] and overlaps.second.tolist() == [-7, 2**40]
    assert overlaps.shared.tolist() == [[0, 1], [1, 1]]


def test_no_pixels():
    assert SegmentOverlaps.between(np.zeros((0, 4), int), np.zeros((0, 4), int)).shared.shape == (0, 0)
