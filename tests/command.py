"""The command `vaeguard` as a user types it, in this process, which has loaded everything, or in one of its own."""

import contextlib
import io
import os
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

from vaeguard_cli.main import main

COMMAND = str(Path(sys.executable).with_name("vaeguard"))


def run(folder, *arguments, stdin="", **environment):
    """What the command prints and its exit code, in a folder with a cache of its own."""
    out, error = io.StringIO(), io.StringIO()
    given = [COMMAND, *map(str, arguments)]
    with (
        mock.patch.dict(os.environ, _environment(folder) | environment),
        mock.patch.object(sys, "argv", given),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()))),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
        warnings.catch_warnings(),
    ):
        warnings.resetwarnings()
        try:
            main()
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess(given, code, out.getvalue(), error.getvalue())


def start(folder, *arguments, **environment):
    """The command in a process of its own, which can be killed."""
    return subprocess.Popen(
        [COMMAND, *map(str, arguments)],
        cwd=folder,
        env=os.environ | _environment(folder) | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_apart(folder, *arguments, **environment):
    """The same as `run`, in a process of its own."""
    process = start(folder, *arguments, **environment)
    out, error = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)


def _environment(folder):
    return {"VAEGUARD_CACHE": str(Path(folder) / "cache"), "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
