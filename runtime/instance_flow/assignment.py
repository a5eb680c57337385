# SPDX-License-Identifier: Apache-2.0
"""The cheapest one-to-one assignment of rows to columns (linear sum assignment)."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


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
