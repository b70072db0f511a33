"""Z as one sparse matrix, for a person who wants to see it; nothing in the package computes with it."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from bayeslmm.data.design import Design


def random_columns(design: Design) -> sp.csc_array:
    """(n, sum of K q): term after term in the order of the formula, level after level, the columns of a level side by side."""
    n, blocks = design.nobs, []
    for term in design.terms:
        q = term.Z.shape[1]
        columns = (term.group.codes[:, None] * q + np.arange(q)).ravel()
        blocks.append(sp.csr_array((term.Z.ravel(), columns, np.arange(0, n * q + 1, q)), shape=(n, term.group.size * q)))
    return sp.csc_array(sp.hstack(blocks)) if blocks else sp.csc_array((n, 0))
