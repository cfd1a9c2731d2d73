"""Neural-network compression contests: data, networks, compression, training and the model file."""

__version__ = "0.1.0"
