"""From any frame to checked columns to a `Design`: y, X, grouping factors as codes, and the encoding that new data go through."""
