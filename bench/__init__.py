"""The benchmark: every figure a ratio to a peer or to a limit, taken in the same run."""
