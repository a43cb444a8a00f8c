# SPDX-License-Identifier: BSD-3-Clause
"""Medians, limits and comparisons: numbers in, numbers out."""

import statistics


class Spread:
    """A median with the smallest and the largest value."""

    def __init__(self, values):
        self.values = list(values)
        self.median = statistics.median(self.values)
        self.low, self.high = min(self.values), max(self.values)

    def text(self, scale=1.0, digits=0):
        return "%.*f (%.*f-%.*f)" % (
            digits, self.median * scale, digits, self.low * scale, digits,
            self.high * scale)


def series(ones, others):
    """The rate of two things that share the same cores, one after the
    other: 1 / (1/R + 1/N)."""
    return 1 / (1 / ones + 1 / others)


def ratio(ones, others):
    """The ratio of medians, with its spread: of the rounds' ratios, since
    what slows one cell of a round slows its neighbours too."""
    rounds = [a / b for a, b in zip(ones, others) if b]
    return (statistics.median(ones) / statistics.median(others),
            min(rounds), max(rounds))
