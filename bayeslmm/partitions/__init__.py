"""Rows that do not fit in memory: read in parts, added up into the same cross-products."""

from bayeslmm.partitions.design import PartitionedDesign, SummedRows
from bayeslmm.partitions.partitions import Partitions
from bayeslmm.partitions.sums import problem_of_sums, sum_partitions
from bayeslmm.partitions.table import EngineTable
from bayeslmm.partitions.table_sums import sum_table

__all__ = ["EngineTable", "PartitionedDesign", "Partitions", "SummedRows", "problem_of_sums", "sum_partitions", "sum_table"]
