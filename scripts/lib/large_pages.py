"""Lets the kernel give large pages to memory files that ask: docs/OPERATIONS.md, *Large pages*."""

import contextlib
import pathlib
import re

import measure

SETTING = pathlib.Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
TO_WHO_ASKS = "advise"


def add_argument(parser):
    parser.add_argument("--large-pages", action="store_true",
                        help=f"as root: with {SETTING.name} of the kernel at {TO_WHO_ASKS} meanwhile")


@contextlib.contextmanager
def given(wanted):
    """With `wanted` nodes started inside get large pages. The machine's setting is as before after."""
    if not wanted:
        yield
        return
    try:
        before = re.search(r"\[(\w+)\]", SETTING.read_text(encoding="ascii"))[1]
        SETTING.write_text(TO_WHO_ASKS, encoding="ascii")
    except OSError as error:
        measure.cannot_run(f"--large-pages: {error}")
    try:
        yield
    finally:
        SETTING.write_text(before, encoding="ascii")
