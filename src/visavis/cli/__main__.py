"""``python -m visavis.cli``: the command line without the script."""

from visavis.cli import main

main()
