"""The graph of operations that is priced and run, how it is built, and its interpreter."""
