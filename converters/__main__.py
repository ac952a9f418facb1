"""``python -m converters`` is ``kfer-convert``.

Processes of one's own import this module again, so the command line is imported only to be run.
"""


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        from converters.cli import main
    except KeyboardInterrupt:
        # Nothing has begun yet; the import takes long enough to be interrupted.
        raise SystemExit(130) from None
    main()


if __name__ == "__main__":
    main()
