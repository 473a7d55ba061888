"""Entry: ``bgdeploy`` and ``python -m bgdeploy``; Ctrl+C ends it quietly while it is still being imported too."""

from bgdeploy.memory import put_off


def main() -> None:
    """Run the command line."""
    put_off()
    try:
        from bgdeploy.cli.app import main as run

        run()
    except KeyboardInterrupt:
        from bgdeploy.errors import ExitCode  # late: nothing stands before the try

        raise SystemExit(ExitCode.INTERRUPTED) from None


if __name__ == "__main__":
    main()
