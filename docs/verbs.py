"""Writes docs/api/verbs.md, the options of every verb, from the parser of the command line.

python docs/verbs.py
"""

import argparse
from pathlib import Path

from keras_ic.cli import _parser

PLAIN = ("positional arguments", "options")  # argparse's own groups
PAGE = Path(__file__).parent / "api" / "verbs.md"
HEAD = """# Command line

`keras-ic VERB ...`, or `python -m keras_ic VERB ...`. Each verb is a thin call of a public
function, so that a script can do the same. `keras-ic VERB --help` says what is here, too.

Exit codes: 0 done; 2 something to fix, said in one line; 75 stopped by a signal, with everything
saved, so that the same command goes on; 1 anything else.
"""


def page() -> str:
    """The page."""
    (verbs,) = (
        action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    parts = [HEAD]
    for name, verb in verbs.choices.items():
        parts.append(f"## keras-ic {name}\n\n{_sentence(verb.description)}\n")
        tables: dict[str, list[str]] = {}
        for group in verb._action_groups:
            title = "" if group.title in PLAIN else _sentence(group.title)
            actions = [action for action in group._group_actions if action.dest != "help"]
            tables.setdefault(title, []).extend(_row(verb, action) for action in actions)
        for title, rows in tables.items():
            parts += [f"{title}\n"] if title else []
            parts.append("\n".join(["| argument | what it does |", "| --- | --- |", *rows]) + "\n")
    return "\n".join(parts)


def _row(verb: argparse.ArgumentParser, action: argparse.Action) -> str:
    formatter = verb.formatter_class(verb.prog)
    names = ", ".join(action.option_strings)
    metavar = formatter._get_default_metavar_for_optional(action).upper()
    values = formatter._format_args(action, metavar) if action.nargs != 0 else ""
    shown = f"{names} {values}".strip()
    text = formatter._expand_help(action) if action.help else ""
    # A pipe in code would end the cell for some readers of Markdown and show its escape in others.
    code = f"`{shown}`" if "|" not in shown else f"<code>{shown.replace('|', '&#124;')}</code>"
    return f"| {code} | {text.replace('|', chr(92) + '|')} |"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}".rstrip(".") + "."


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
