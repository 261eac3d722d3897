"""File systems in an image, whose backing file can be copied as a power cut would leave it."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest


def run(*words):
    subprocess.run(words, check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def mounted(image, at, options="loop"):
    at.mkdir(exist_ok=True)
    run("mount", "-o", options, str(image), str(at))
    try:
        yield at
    finally:
        run("umount", "--lazy", str(at))  # a failed test may still hold a file open


def copied(image, target):
    """A copy of the image as it is on its disk now."""
    run("cp", "--sparse=always", str(image), str(target))
    return Path(target)


@contextlib.contextmanager
def disk(folder, kind="ext4", size=96 << 20):
    """The image and where it is mounted; a skipped test where that can't be done."""
    image = folder / "image"
    with contextlib.ExitStack() as stack:
        try:
            with image.open("wb") as file:
                file.truncate(size)
            run(f"mkfs.{kind}", "-q", str(image))
            at = stack.enter_context(mounted(image, folder / "running"))
        except (OSError, subprocess.CalledProcessError) as exc:
            pytest.skip(f"no {kind} image can be mounted here: {exc}")
        os.sync()
        yield image, at
