"""`python -m opsgate`."""

from opsgate.program import main

main()
