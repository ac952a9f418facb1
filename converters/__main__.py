"""``python -m converters`` is ``kfer-convert``."""

from converters.cli import main

if __name__ == "__main__":
    main()
