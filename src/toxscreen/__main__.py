"""``python -m toxscreen``."""

from toxscreen.cli import main

main()
