"""The filter of what native code writes to the standard error. In a process of its own: pytest replaces these files too."""

import subprocess
import sys

FILTERED = """
import os, subprocess, sys
from microaction.distributed.native_log import HARMLESS, filtered_native_log

os.write(2, b"before\\n")
with filtered_native_log():
    os.write(2, b"[E] Actor 1 " + HARMLESS[0] + b"; see the docs\\n")
    os.write(2, b"another native line\\n")
    print("a line of Python", file=sys.stderr)
    {inside}
    os.write(2, b"the last native line\\n")
os.write(2, b"after\\n")
print("a later line of Python", file=sys.stderr)
{outside}
"""
KEPT = ["before", "another native line", "a line of Python", "the last native line", "after", "a later line of Python"]


def stderr_of(inside: str = "", outside: str = "") -> list[str]:
    code = FILTERED.format(inside=inside, outside=outside)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.splitlines()


def test_only_harmless_native_lines_are_dropped() -> None:
    lines = stderr_of()
    assert sorted(lines) == sorted(KEPT)
    assert lines[0] == "before"
    assert lines[-2:] == ["after", "a later line of Python"]


def test_a_child_that_keeps_the_file_open_does_not_block() -> None:
    """Ray's processes may outlive the filter."""
    child = "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)"
    assert sorted(stderr_of(child, "child.kill()")) == sorted(KEPT)
