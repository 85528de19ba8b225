"""Do the clips as a whole look like the world's? The Fréchet distance of their features, from a network of our own.

|m1 - m2|² + tr(S1 + S2 - 2 (S1^½ S2 S1^½)^½), with m the means and S the covariances of the features of the
videos and of the references (Heusel et al. 2017; for video Unterthiner et al. 2018). The features are those of
`kinetograph.neural.features`, so the numbers compare engines on one world, never with an FID or FVD elsewhere.
The distance is biased upward for few videos: compare scores of the same count. The part `kernel` is the
unbiased squared maximum mean discrepancy with the kernel (x·y / d + 1)³ (KID, Bińkowski et al. 2018), which
has no such bias and may be slightly negative.
"""

from collections.abc import Sequence
from types import ModuleType

import numpy as np

from kinetograph.media import Frames
from kinetograph.metrics import Score, bootstrap, check

UNIT = "squared feature distance"
BETTER = "lower"
LEAST = 2  # videos: one has no covariance
FEW = 30  # resamples for the interval: each takes a decomposition of the covariances
BLOCK = 1000  # videos whose kernel is held in memory at once


def score(videos: Sequence[Frames], prompts: Sequence[str], references: Sequence[Frames], world: ModuleType) -> Score:
    """Compare the two sets of features; the interval resamples the prompts. Needs two videos at least.

    Raises WeightsError where the network that sees the features is missing.
    """
    check(videos, prompts, references, least=LEAST)
    from kinetograph.neural.features import of  # brings torch, which a look at the shelf must not

    ours, theirs = of(videos), of(references)
    value, low, high = bootstrap(lambda p: frechet_distance(ours[p], theirs[p]), len(videos), FEW)
    k, below, above = bootstrap(lambda p: kernel_distance(ours[p], theirs[p]), len(videos), FEW)
    kernel = Score(value=k, low=below, high=above, count=len(videos), unit="squared discrepancy", better="lower")
    return Score(value=value, low=max(0.0, low), high=high, count=len(videos), parts={"kernel": kernel})


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The distance of two sets of features (n, d), each taken for a normal distribution; never negative."""
    (m1, s1), (m2, s2) = moments(a), moments(b)
    root = _root(s1)
    mixed = np.linalg.eigvalsh(root @ s2 @ root)
    overlap = float(np.sqrt(np.clip(mixed, 0, None)).sum())  # rounding makes zeros slightly negative
    return max(0.0, float(np.sum((m1 - m2) ** 2) + np.trace(s1) + np.trace(s2)) - 2 * overlap)


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and unbiased covariance (d, d) of features (n, d), n > 1."""
    m = x.mean(axis=0)
    return m, (x - m).T @ (x - m) / (len(x) - 1)


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The unbiased squared discrepancy of two sets of features (n, d): the mean over blocks of equal size."""
    blocks = -(-len(a) // BLOCK)
    pairs = zip(np.array_split(a, blocks), np.array_split(b, blocks), strict=True)
    return float(np.mean([_discrepancy(x, y) for x, y in pairs]))


def _discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.asarray((one @ other.T / one.shape[1] + 1) ** 3)

    def among(one: np.ndarray) -> float:
        k, n = kernel(one, one), len(one)
        return float((k.sum() - np.trace(k)) / (n * (n - 1)))

    return among(x) + among(y) - 2 * float(kernel(x, y).mean())


def _root(s: np.ndarray) -> np.ndarray:
    """The symmetric square root of a covariance (d, d)."""
    values, vectors = np.linalg.eigh(s)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T)
