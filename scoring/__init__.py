"""What a network costs, and whether that is true."""
