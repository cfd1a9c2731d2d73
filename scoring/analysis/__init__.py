"""From a graph of operations to its costs: weights, bits, channels, and what is free."""
