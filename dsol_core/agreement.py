"""How well clusters and labels agree: contingency tables, NMI, purity; how evenly entries are used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def nmi(clusters: Any, labels: Sequence[str]) -> float:
    """Return the normalised mutual information (arithmetic mean of the entropies), 0 to 1."""
    return float(table_nmi(_table(clusters, labels)))


def purity(clusters: Any, labels: Sequence[str]) -> float:
    """Return the share of samples that carry the most frequent label of their cluster, 0 to 1."""
    return float(table_purity(_table(clusters, labels)))


def table_nmi(tables: Any) -> Any:
    """Return the normalised mutual information of contingency tables (arithmetic mean of the entropies).

    Args:
        tables: [..., K, C] counts, not negative, not all zero.

    Returns:
        float64 [...] in [0, 1]; 1 where both sides have a single value.
    """
    joint = np.asarray(tables, dtype=np.float64)
    joint = joint / joint.sum((-2, -1), keepdims=True)
    rows, columns, both = _entropy(joint.sum(-1)), _entropy(joint.sum(-2)), _entropy(joint, (-2, -1))
    mean = (rows + columns) / 2
    return np.clip(np.divide(rows + columns - both, mean, out=np.ones(np.shape(mean)), where=mean > 1e-12), 0, 1)


def table_purity(tables: Any) -> Any:
    """Return the share of samples with the commonest label of their cluster; tables [..., K, C] of counts."""
    tables = np.asarray(tables, dtype=np.float64)
    return tables.max(-1).sum(-1) / tables.sum((-2, -1))


def evenness(counts: Any) -> Any:
    """Return the entropy of counts [..., K] as a share of its largest value: 0 one entry only, 1 all equally often."""
    counts = np.asarray(counts, dtype=np.float64)
    if counts.shape[-1] < 2:
        return np.zeros(counts.shape[:-1])
    return _entropy(counts / counts.sum(-1, keepdims=True)) / np.log(counts.shape[-1])


def _entropy(shares: Any, axis: Any = -1) -> Any:
    return np.abs((shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis))


def _table(clusters: Any, labels: Sequence[str]) -> Any:
    _, row = np.unique(np.asarray(clusters), return_inverse=True)
    _, column = np.unique(np.asarray(labels), return_inverse=True)
    table = np.zeros((row.max() + 1, column.max() + 1))
    np.add.at(table, (row, column), 1)
    return table
