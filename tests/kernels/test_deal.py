"""Events dealt out to lanes, against a list for each lane."""

import numpy as np
import pytest

from replay.kernels.deal import count_lanes, deal, keep


def columns(n, seed):
    generator = np.random.default_rng(seed)
    t_ns = np.sort(generator.integers(0, 1 << 40, n)).astype(np.uint64)
    return t_ns, generator.integers(0, 1 << 32, n, dtype=np.uint32), generator.integers(0, 1 << 16, n, dtype=np.uint16)


def empty(n):
    return tuple(np.zeros(n, dtype) for dtype in (np.uint64, np.uint32, np.uint16))


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 4096])
@pytest.mark.parametrize("lanes", [1, 2, 65])
def test_each_lane_keeps_the_order_of_its_events(n, lanes):
    given, to = columns(n, n), empty(n)
    lane = np.random.default_rng(lanes).integers(0, lanes, n).astype(np.uint16)
    counts = np.zeros(lanes, dtype=np.uint64)
    count_lanes(lane, counts)
    assert counts.tolist() == [int((lane == one).sum()) for one in range(lanes)]
    place = np.cumsum(counts, dtype=np.uint64) - counts
    deal(*given, lane, place, *to)
    for array, dealt in zip(given, to, strict=True):
        expected = [value for one in range(lanes) for value in array[lane == one].tolist()]
        assert dealt.tolist() == expected
    assert place.tolist() == np.cumsum(counts).tolist()


def test_what_was_left_comes_first_and_earlier():
    given, to = columns(10, 1), empty(7)
    head, stop = np.array([1, 5], dtype=np.uint64), np.array([4, 7], dtype=np.uint64)
    place = np.array([0, 4], dtype=np.uint64)
    keep(*given, head, stop, given[0][0] + np.uint64(5), place, *to)
    assert place.tolist() == [3, 6]
    left = [1, 2, 3, 5, 6]
    assert to[0][[0, 1, 2, 4, 5]].tolist() == [(int(given[0][i]) - int(given[0][0]) - 5) % (1 << 64) for i in left]
    assert to[1][[0, 1, 2, 4, 5]].tolist() == given[1][left].tolist()
    assert to[2][[3, 6]].tolist() == [0, 0]
