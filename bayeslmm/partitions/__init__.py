"""Rows that do not fit in memory: read in parts, added up into the same cross-products."""

from bayeslmm.partitions.partitions import Partitions
from bayeslmm.partitions.sums import PartitionedDesign, sum_partitions

__all__ = ["PartitionedDesign", "Partitions", "sum_partitions"]
