"""Entry: ``bgdeploy`` and ``python -m bgdeploy``; Ctrl+C ends it quietly while it is still being imported too."""


def main() -> None:
    """Run the command line."""
    try:
        from bgdeploy.cli.app import main as run

        run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # ExitCode.INTERRUPTED, which may not be imported yet


if __name__ == "__main__":
    main()
