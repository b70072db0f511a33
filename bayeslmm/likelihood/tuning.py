"""The choice of a factorisation: the sizes at which another one becomes faster, and the rules that read them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tuning:
    """Sizes that choose how a likelihood is evaluated; none of them changes its value beyond rounding.

    Measured on one core with OpenBLAS. Columns are those of Z (levels times columns of a term), elements and products are float64 numbers.

    dense_one_factor : columns of a single grouping factor up to which they are one dense matrix; more are eliminated level by level
    dense_all_factors : columns of all crossed factors up to which they are one dense block; finding structure among so few costs more
    batched_columns : columns of a component up to which components of one shape are factorised together, larger ones one by one by LAPACK
    packed_columns : columns of a single component from which it is kept as packed triangles: half the memory of a square
    table_pairs : pairs of levels up to which their cross-products are a whole table; sparse bookkeeping would cost more
    dense_off_diagonal : elements that a dense block between the first factor and the rest may hold (2 GB)
    sparse_products : pairwise products up to which that block is a sparse map (12 bytes each for every entry of a level's matrix)
    component_columns : columns of a component of crossed levels beyond which it is solved iteratively, by sparse products, not factorised
    probes : probes from which the determinant of such a component is first estimated
    most_probes : probes at most; what is left of the Monte Carlo error then is said
    dense_speed : multiplications of a dense factor in the time of one that a sparse product makes
    remaining_elements : elements of the block of all levels but the first factor's, beyond which a model is refused (8 GB)
    unrolled_columns : columns of a level up to which its Cholesky factor is written out over vectors of levels; LAPACK above
    batched_levels : levels (times parameter points) up to which batches of small matrices beat vectors of levels: calls take the time
    pooled_elements : elements that cross-products pooled over equal levels may hold
    pooled_sums : products summed by pattern of visits that are always kept, however few the rows
    structured_rows : rows of one block of structured errors beyond which a model is refused: V would not fit
    one_thread_columns : columns of a dense block below which one BLAS thread is faster than several
    """

    dense_one_factor: int = 64
    dense_all_factors: int = 96
    batched_columns: int = 48
    packed_columns: int = 256
    table_pairs: int = 1 << 15
    dense_off_diagonal: int = 1 << 28
    sparse_products: int = 60_000_000
    component_columns: int = 4000
    probes: int = 8
    most_probes: int = 512
    dense_speed: float = 20.0
    remaining_elements: int = 1 << 30
    unrolled_columns: int = 6
    batched_levels: int = 256
    pooled_elements: int = 8_000_000
    pooled_sums: int = 100_000
    structured_rows: int = 8000
    one_thread_columns: int = 1500

    def eliminates_first(self, factors: int, columns: int, related: bool, one_point: bool) -> bool:
        """Whether the first factor is eliminated level by level. related : it has a relationship matrix, which ties its levels.

        For one point at a time a few crossed levels are one small dense block: eliminating a factor first would save nothing.
        """
        return not related and (factors == 1 or columns > self.dense_all_factors or not one_point)

    def is_dense(self, columns: int, eliminated: bool) -> bool:
        """Whether all columns of Z are one dense matrix. eliminated : they are those of one factor, which could go level by level."""
        return columns <= (self.dense_one_factor if eliminated else self.dense_all_factors)

    def is_one_component(self, columns: int, elements: int) -> bool:
        """Whether the remaining columns are one dense block unlooked at. elements : of what ties them to the first factor."""
        return columns <= self.batched_columns and elements <= self.table_pairs

    def prefers_dense(self, columns: int, multiplications: float) -> bool:
        """Whether a dense factor of so many columns fits, and costs less than an iterative evaluation of so many multiplications."""
        return columns**2 <= self.remaining_elements and float(columns) ** 3 < self.dense_speed * multiplications

    def pools_patterns(self, blocks: int, patterns: int, k: int, r: int) -> bool:
        """Whether sums by pattern cost less than the blocks, of k rows and r columns of [X y] each."""
        return patterns <= blocks // 3 and patterns * (k * r) ** 2 <= max(self.pooled_sums, 20 * blocks * k * (k + r))


TUNING = Tuning()
