"""`python -m spadework` is the command `spadework`."""

from spadework.cli import main

main()
