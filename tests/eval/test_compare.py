"""McNemar's exact test against binomial sums in whole numbers, and the pairing of items."""

import unittest
from fractions import Fraction
from math import comb

from dtrnet_eval import compare


def exact(b: int, c: int) -> Fraction:
    """Two-sided, by whole numbers."""
    n = b + c
    return min(Fraction(1), Fraction(2 * sum(comb(n, i) for i in range(min(b, c) + 1)), 2**n)) if n else Fraction(1)


class McNemar(unittest.TestCase):
    def test_against_whole_numbers(self) -> None:
        for b, c in [(0, 0), (0, 1), (1, 0), (5, 5), (0, 10), (3, 12), (54, 36), (110, 96), (140, 111), (400, 300), (1, 2000)]:
            want = float(exact(b, c))
            self.assertAlmostEqual(compare.mcnemar(b, c), want, delta=1e-9 * max(want, 1e-300) + 1e-12, msg=(b, c))
            self.assertEqual(compare.mcnemar(b, c), compare.mcnemar(c, b))


class Pairing(unittest.TestCase):
    def test_only_shared_items(self) -> None:
        first = {(0, "h"): {"acc": 1.0}, (1, "h"): {"acc": 1.0}, (2, "h"): {"acc": 0.0}, (3, "h"): {"acc": 1.0}}
        second = {
            (0, "h"): {"acc": 0.0},
            (1, "h"): {"acc": 1.0},
            (2, "h"): {"acc": 1.0},
            (3, "other"): {"acc": 0.0},
            (9, "h"): {"acc": 1.0},
        }
        pair = compare.compare(first, second)
        assert pair is not None
        self.assertEqual((pair.n, pair.only_first, pair.only_second), (3, 1, 1))
        self.assertTrue(pair.low <= pair.second - pair.first <= pair.high)
        self.assertIsNone(compare.compare(first, {}))
        self.assertIsNone(compare.compare(first, second, "exact_match"))

    def test_interval_of_no_difference(self) -> None:
        side = {i: {"acc": float(i % 2)} for i in range(100)}
        pair = compare.compare(side, side)
        assert pair is not None
        self.assertEqual((pair.low, pair.high, pair.p), (0.0, 0.0, 1.0))


if __name__ == "__main__":
    unittest.main()
