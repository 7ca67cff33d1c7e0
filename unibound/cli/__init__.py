"""The command line."""

from unibound.cli.app import main

__all__ = ["main"]
