"""`omnisat`, also as `python -m omnisat_cli`."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from typer.main import get_command

    from omnisat_cli.cli.app import app
    from omnisat_cli.cli.guard import install

    install()
    # Not app(): that would put typer's own exception hook in place of ours.
    get_command(app)(prog_name="omnisat")


if __name__ == "__main__":
    main()
