"""Rows that do not fit in memory: read in parts, added up into the same cross-products."""

from bayeslmm.scale.design import PartitionedDesign
from bayeslmm.scale.partitions import Partitions
from bayeslmm.scale.summing import sum_partitions

__all__ = ["PartitionedDesign", "Partitions", "sum_partitions"]
