"""Tests that may be looked at after every outcome, for ever. Pure.

An e-process is a bet against 'both are alike' that cannot be expected to win money if they are;
so the probability that it ever reaches 1/alpha is at most alpha, however often one looks (Ville's
inequality). Whoever stops at the first look at which it is so large errs with at most alpha.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

PRIOR = 0.18
"""Both parameters of the beta prior that Turner et al. found to lose least."""

GROUP_MAX = 20
"""Most outcomes of one side in a block."""

WAITING_MAX = 2_000
"""Outcomes of one side that may wait for the other's; newer ones are then passed over, whatever
they are."""


@dataclass(frozen=True, slots=True)
class Arm2:
    """Successes and trials of one side in the blocks so far."""

    successes: int = 0
    trials: int = 0

    @property
    def rate(self) -> float:
        """Share of successes; NaN of none."""
        return self.successes / self.trials if self.trials else math.nan

    @property
    def guess(self) -> float:
        """The rate that the next block is bet on."""
        return (self.successes + PRIOR) / (self.trials + 2 * PRIOR)

    def plus(self, outcomes: Sequence[bool]) -> "Arm2":
        """With more."""
        return Arm2(self.successes + sum(outcomes), self.trials + len(outcomes))


@dataclass(frozen=True, slots=True)
class TwoSampleTest:
    """Do two streams of successes and failures have the same rate?

    Outcomes are taken in blocks of fixed size from each side. Valid where, given the past, both
    sides of a block succeed with the same probability if nothing distinguishes them; this
    probability may change from block to block.

    Attributes:
        group_a: Outcomes of A in a block; set before any outcome is known.
        group_b: The same of B.
        a: What is behind.
        b: The same.
        waiting_a: Outcomes that no block has yet; the oldest go first.
        waiting_b: The same.
        log_e: Logarithm of the e-value now.
        log_e_max: The greatest so far: what was decided stays decided.

    References:
        Turner, Ly and Grünwald, Generic E-variables for exact sequential k-sample tests that
        allow for optional stopping, J. Statist. Plann. Inference 230, 2024,
        doi:10.1016/j.jspi.2023.106116; Ville, Étude critique de la notion de collectif, 1939.
    """

    group_a: int = 1
    group_b: int = 1
    a: Arm2 = Arm2()
    b: Arm2 = Arm2()
    waiting_a: tuple[bool, ...] = ()
    waiting_b: tuple[bool, ...] = ()
    log_e: float = 0.0
    log_e_max: float = 0.0

    @staticmethod
    def of_weights(weight_a: float, weight_b: float) -> "TwoSampleTest":
        """Blocks as unequal as the sides, so that no outcomes of the larger one go to waste.

        Example:
            >>> test = TwoSampleTest.of_weights(0.95, 0.05)
            >>> test.group_a, test.group_b
            (19, 1)
        """
        if not weight_a > 0 or not weight_b > 0:
            return TwoSampleTest()
        ratio = weight_a / weight_b
        return TwoSampleTest(
            group_a=min(max(round(ratio), 1), GROUP_MAX),
            group_b=min(max(round(1 / ratio), 1), GROUP_MAX),
        )

    def plus(self, *, a: Sequence[bool] = (), b: Sequence[bool] = ()) -> "TwoSampleTest":
        """With more outcomes, in the order in which they happened."""
        test = replace(self, waiting_a=(*self.waiting_a, *a), waiting_b=(*self.waiting_b, *b))
        while len(test.waiting_a) >= test.group_a and len(test.waiting_b) >= test.group_b:
            test = test._with_block()
        return replace(
            test,
            waiting_a=test.waiting_a[:WAITING_MAX],
            waiting_b=test.waiting_b[:WAITING_MAX],
        )

    @property
    def p_value(self) -> float:
        """Always valid: at most alpha ever with probability at most alpha, if both are alike."""
        return math.exp(-self.log_e_max)

    def is_decided(self, alpha: float) -> bool:
        """Whether it ever was beyond 1/alpha."""
        return self.log_e_max >= -math.log(alpha)

    @property
    def b_is_better(self) -> bool:
        """Whether B has the greater rate in the blocks so far."""
        return self.b.rate > self.a.rate

    def _with_block(self) -> "TwoSampleTest":
        ys_a, ys_b = self.waiting_a[: self.group_a], self.waiting_b[: self.group_b]
        guess_a, guess_b = self.a.guess, self.b.guess
        alike = (self.group_a * guess_a + self.group_b * guess_b) / (self.group_a + self.group_b)
        log_e = self.log_e + _gain(ys_a, guess_a, alike) + _gain(ys_b, guess_b, alike)
        return replace(
            self,
            a=self.a.plus(ys_a),
            b=self.b.plus(ys_b),
            waiting_a=self.waiting_a[self.group_a :],
            waiting_b=self.waiting_b[self.group_b :],
            log_e=log_e,
            log_e_max=max(self.log_e_max, log_e),
        )


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Of two that judge the same cases: is one right where the other is wrong more often?

    Only cases count in which exactly one is right. If both are alike it is either with
    probability 1/2; the bet is the mixture over all other probabilities with Jeffreys' prior.

    Attributes:
        wins: Cases in which only B was right.
        losses: Cases in which only A was right.
        log_e_max: The greatest logarithm of the e-value so far.

    References:
        Krichevsky and Trofimov, IEEE Trans. Inf. Theory 27, 1981, for the mixture; McNemar,
        Psychometrika 12, 1947, for the cases that count.
    """

    wins: int = 0
    losses: int = 0
    log_e_max: float = 0.0

    def plus(self, b_was_right: Sequence[bool]) -> "PairedTest":
        """With more cases in which exactly one was right."""
        test = self
        for right in b_was_right:
            counted = replace(test, wins=test.wins + right, losses=test.losses + (not right))
            test = replace(counted, log_e_max=max(counted.log_e_max, counted.log_e))
        return test

    @property
    def log_e(self) -> float:
        """Logarithm of the e-value now."""
        both = self.wins + self.losses
        mixture = math.lgamma(self.wins + 0.5) + math.lgamma(self.losses + 0.5)
        return mixture - math.lgamma(both + 1) - math.log(math.pi) + both * math.log(2)

    @property
    def p_value(self) -> float:
        """As of `TwoSampleTest`."""
        return math.exp(-self.log_e_max)

    def is_decided(self, alpha: float) -> bool:
        """As of `TwoSampleTest`."""
        return self.log_e_max >= -math.log(alpha)

    @property
    def b_is_better(self) -> bool:
        """Whether B was alone right more often than A."""
        return self.wins > self.losses


def _gain(outcomes: Sequence[bool], guess: float, alike: float) -> float:
    """Logarithm of how much better the guess foretold than 'alike' did."""
    successes = sum(outcomes)
    failures = len(outcomes) - successes
    return successes * math.log(guess / alike) + failures * math.log((1 - guess) / (1 - alike))
