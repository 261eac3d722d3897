"""`python -m pacs_core`: the command `pacs-core`."""

from pacs_core.cli.main import main

main()
