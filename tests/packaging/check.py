"""Builds the wheel and the sdist, checks their metadata, runs the smoke test of each in an empty
environment, and times the import beside Keras's.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT = 1.3


def run(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, **options)


def seconds_to_import(python, module, folder):
    begin = time.perf_counter()
    run(python, "-c", f"import {module}", cwd=folder, env={**os.environ, "KERAS_BACKEND": "jax"})
    return time.perf_counter() - begin


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        run(sys.executable, "-m", "build", "--outdir", folder, ROOT, stdout=subprocess.DEVNULL)
        packages = sorted([*folder.glob("*.whl"), *folder.glob("*.tar.gz")])
        assert len(packages) == 2, packages
        run(sys.executable, "-m", "twine", "check", "--strict", *packages)
        for package in packages:
            environment = folder / f"env-{package.suffix}"
            venv.create(environment, with_pip=True)
            python = environment / "bin" / "python"
            run(python, "-m", "pip", "install", "--quiet", f"{package}[jax]")
            run(
                python,
                Path(__file__).with_name("smoke.py"),
                cwd=folder,
                env={**os.environ, "KERAS_BACKEND": "jax"},
            )
            print(f"{package.name} passes")
        pairs = [
            (
                seconds_to_import(python, "keras", folder),
                seconds_to_import(python, "keras_ic", folder),
            )
            for _ in range(5)
        ]
        ratio = statistics.median(ours / keras for keras, ours in pairs)
        print(f"import keras_ic takes {ratio:.2f} times as long as import keras (limit {LIMIT})")
        if ratio > LIMIT:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
