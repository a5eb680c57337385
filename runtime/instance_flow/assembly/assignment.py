# SPDX-License-Identifier: Apache-2.0
"""One-to-one assignment of rows to columns: the cheapest in all (linear sum assignment), or the cheapest pair first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from instance_flow.kernels.input import kernel_input
from instance_flow.structures import IntArray


@njit(cache=True, nogil=True)
def assign(cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """Give the column of each row so that the sum of costs is least, and every row or every column has a partner.

    cost: (N, M) float64, finite. Returns (N,) int64, -1 for a row without a column (where N > M).
    Rows are added one at a time, each along the cheapest alternating path (Crouse, On implementing 2D rectangular
    assignment algorithms, 2016). Where several assignments cost the same, the one that SciPy's linear_sum_assignment
    gives is given: a free column wins over a taken one, and a set of equal costs gives row k column k.
    """
    if len(cost) > cost.shape[1]:
        row_of_column = _assign_wide(np.ascontiguousarray(cost.T))
        column_of_row = np.full(len(cost), -1, np.int64)
        for column in range(len(row_of_column)):
            column_of_row[row_of_column[column]] = column
        return column_of_row
    return _assign_wide(np.ascontiguousarray(cost))


@njit(cache=True, nogil=True)
def _assign_wide(cost: NDArray[np.float64]) -> NDArray[np.int64]:
    rows, columns = cost.shape
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    column_of_row, row_of_column = np.full(rows, -1, np.int64), np.full(columns, -1, np.int64)
    for row in range(rows):
        end, length, distance, came_from, visited = _cheapest_path(cost, row, row_price, column_price, row_of_column)
        row_price[row] += length
        for column in range(columns):
            if visited[column]:
                if column != end:
                    row_price[row_of_column[column]] += length - distance[column]
                column_price[column] -= length - distance[column]
        column = end
        while True:
            partner = came_from[column]
            row_of_column[column] = partner
            column, column_of_row[partner] = column_of_row[partner], column
            if partner == row:
                break
    return column_of_row


@njit(cache=True, nogil=True)
def _cheapest_path(
    cost: NDArray[np.float64],
    start: int,
    row_price: NDArray[np.float64],
    column_price: NDArray[np.float64],
    row_of_column: NDArray[np.int64],
) -> tuple[int, float, NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """Search from row ``start`` for the nearest free column; give it, and length, distances, parents and visited."""
    columns = cost.shape[1]
    distance, came_from = np.full(columns, np.inf), np.full(columns, -1, np.int64)
    visited = np.zeros(columns, np.bool_)
    open_columns = np.arange(columns)[::-1].copy()
    still_open, length, row = columns, 0.0, start
    while True:
        nearest, nearest_distance = -1, np.inf
        for place in range(still_open):
            column = open_columns[place]
            through = length + cost[row, column] - row_price[row] - column_price[column]
            if through < distance[column]:
                distance[column], came_from[column] = through, row
            free = row_of_column[column] < 0
            if distance[column] < nearest_distance or (distance[column] == nearest_distance and free):
                nearest, nearest_distance = place, distance[column]
        column, length = open_columns[nearest], nearest_distance
        visited[column] = True
        if row_of_column[column] < 0:
            return column, length, distance, came_from, visited
        row = row_of_column[column]
        still_open -= 1
        open_columns[nearest] = open_columns[still_open]


def cheapest_pairs(
    cost: NDArray[np.floating[Any]], limit: float, identities: IntArray, rank: IntArray | None = None
) -> list[tuple[int, int]]:
    """Greedy pairs (row, column) of a cost table (M, K): lowest cost first, each row and each identity at most once.

    limit: largest cost of a pair; an infinite cost is above any limit.
    identities: (K,) of the columns; may hold one several times.
    rank: (M, N), which of equal costs in a row comes first, before the order of the columns; where N < K, that of the
        others is -1.
    """
    ranks = np.zeros((len(cost), 0), np.int64) if rank is None else rank
    highest = float(np.result_type(cost, limit).type(limit))  # as ``cost <= limit`` compares them
    pairs = _cheapest_pairs(
        kernel_input(cost, np.float64), highest, kernel_input(identities, np.int64), kernel_input(ranks, np.int64)
    )
    return [(m, k) for m, k in pairs.tolist()]


@njit(cache=True, nogil=True)
def _cheapest_pairs(cost: NDArray[np.float64], limit: float, identities: IntArray, rank: IntArray) -> IntArray:
    """See ``cheapest_pairs``: (P, 2) rows and columns.

    What a row's best column cost when it was last looked for bounds what its best one costs now. So the row with the
    lowest bound is served if its column is still free, and else it looks again: no table is ever sorted.
    """
    rows, columns = cost.shape
    free = np.ones(columns, np.bool_)
    bound, best = np.full(rows, -np.inf), np.full(rows, -1, np.int64)
    pairs, count = np.empty((min(rows, columns), 2), np.int64), 0
    while count < len(pairs):
        m = 0
        for row in range(1, rows):
            m = row if bound[row] < bound[m] else m
        if bound[m] == np.inf:
            break
        k = best[m]
        if k >= 0 and free[k]:
            pairs[count, 0], pairs[count, 1] = m, k
            count += 1
            bound[m] = np.inf
            for other in range(columns):
                free[other] = free[other] and identities[other] != identities[k]
            continue
        bound[m], first = np.inf, 0
        for k in range(columns):
            if free[k] and cost[m, k] <= limit and cost[m, k] <= bound[m]:
                place = rank[m, k] if k < rank.shape[1] else -1
                if cost[m, k] < bound[m] or place < first:
                    bound[m], best[m], first = cost[m, k], k, place
    return pairs[:count]
