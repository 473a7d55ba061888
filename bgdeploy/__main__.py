"""``python -m bgdeploy``."""

from bgdeploy.cli.app import main

main()
