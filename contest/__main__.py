"""`python -m contest` is the command line."""

from contest.cli import main

main()
