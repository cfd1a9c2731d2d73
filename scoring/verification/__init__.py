"""What is measured and checked on the graph: accuracy, repeatability, independent counts."""
