"""The command line of measurements on judged collections."""

import argparse
from pathlib import Path


def of_folders(description: str | None) -> argparse.ArgumentParser:
    """BEIR folders, and how many of their queries to use."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--queries", type=int, default=300)
    return parser
