"""From a file, or a module of the user's, to the graph that is scored. One module for each format."""
