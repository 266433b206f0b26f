"""`python -m dialog_assets.cli`: the same as `dialog-assets`."""

from dialog_assets.cli import main

main()
