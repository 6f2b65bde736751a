"""Write docs/reference/commands.md from the commands themselves.

python docs/commands.py
"""

from __future__ import annotations

import inspect
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from click.testing import CliRunner

PAGE = Path(__file__).parent / "reference" / "commands.md"
WIDTH = 100
HEAD = """# Commands

The help of every command, with all settings. `--set NAME=VALUE` changes any setting that is listed below the options of
a command. The [exit codes](files.md#exit-codes) are the same for all commands.

## Shell completion

To complete commands, options, their values and paths with Tab, add the line for your shell to the file in this table,
and open a new shell:

| shell | file | line |
| --- | --- | --- |
| bash 4.4 or newer | `~/.bashrc` | `eval "$(_VAEGUARD_COMPLETE=bash_source vaeguard)"` |
| zsh | `~/.zshrc` | `eval "$(_VAEGUARD_COMPLETE=zsh_source vaeguard)"` |
| fish | `~/.config/fish/completions/vaeguard.fish` | `_VAEGUARD_COMPLETE=fish_source vaeguard \\| source` |
"""


def page() -> str:
    """The page: a section a command, in the order in which `vaeguard --help` lists them."""
    (script,) = entry_points(group="console_scripts", name="vaeguard")
    group: Any = inspect.getmodule(script.load())
    sections = [HEAD, _section(group.vaeguard, "--help")]
    for name in group.COMMANDS:
        every = any("--help-all" in option.opts for option in group.vaeguard.get_command(None, name).params)
        sections.append(_section(group.vaeguard, name, "--help-all" if every else "--help"))
    return "\n".join(sections)


def _section(group: Any, *words: str) -> str:
    answer = CliRunner().invoke(group, words, prog_name="vaeguard", terminal_width=WIDTH, max_content_width=WIDTH)
    assert answer.exit_code == 0, answer.output
    lines = "\n".join(line.rstrip() for line in answer.output.splitlines())
    return f"## {' '.join(('vaeguard', *words[:-1]))}\n\n```text\n{lines}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
