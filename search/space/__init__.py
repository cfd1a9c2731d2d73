"""What a search may choose: the space of candidates and its starting points."""
