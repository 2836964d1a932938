"""The command `hubel`: words into calls. One command, one function; no logic lives here.

Nothing heavy is imported before a command runs: `hubel --help` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import typer

from hubel.cli import data, heatmap, inside, lab, runs, summary, training, weights
from hubel.errors import HubelError, nearest

OVERVIEW = """Convolutional neural networks you can see through.

\b
  hubel train                        the sample that comes along, trained and explained
  hubel train photos/ --epochs 20    your images: one sub-folder per class
  hubel train street/ --task segment            images/ and masks/: a label for every pixel
  hubel predict runs/photos-compact-1 new.jpg
  hubel look runs/photos-compact-1 new.jpg      every operator of one pass, laid open
  hubel check resnet20               its gradients, proven
  hubel summary resnet20             its layers: costs, receptive fields, times

A source is an image folder, a CSV/TSV manifest, an .npz, IDX or CIFAR files, or a name
('hubel data list'). Every command has --help.
"""

app = typer.Typer(
    help=OVERVIEW,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
training.register(app)
runs.register(app)
inside.register(app)
summary.register(app)
heatmap.register(app)
app.add_typer(data.app, name="data")
app.add_typer(weights.app, name="weights")
app.add_typer(lab.app, name="lab")


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"hubel {version('hubel')}")
        raise typer.Exit


@app.callback()
def _hubel(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """See OVERVIEW."""


def main(words: list[str] | None = None) -> None:
    """Run the command and exit: 0 done, 1 our fault, 2 the caller's mistake, 130 interrupted."""
    sys.exit(run(sys.argv[1:] if words is None else words))


def run(words: list[str]) -> int:
    """Run the command; the exit code."""
    try:
        result = typer.main.get_command(app).main(words, "hubel", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except typer.TyperException as error:
        return _misused(error, words)
    except HubelError as error:
        return _say(str(error), 130 if type(error).__name__ == "Interrupted" else 2)
    except (KeyboardInterrupt, typer.Abort):
        return _say("stopped", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:  # a fault of ours, whatever it is: show it whole
        traceback.print_exc()
        return _say("this is a fault in hubel, not in what you did; please report it", 1)


def _say(message: str, code: int) -> int:
    """One line on standard error; of several processes only the first speaks."""
    if os.environ.get("RANK", "0") == "0":
        print(f"hubel: {' '.join(message.split())}", file=sys.stderr)
    return code


def _misused(error: typer.TyperException, words: list[str]) -> int:
    """Typer's complaint in one line, with the nearest right word."""
    context: Any = getattr(error, "ctx", None)
    kind = type(error).__name__  # typer keeps these classes private
    if kind == "NoArgsIsHelpError":
        print(context.get_help() if context else error)
        return 2
    message = error.format_message().rstrip(".")
    if kind == "NoSuchOption":
        given = str(getattr(error, "option_name", ""))
        names = [n for p in context.command.params for n in p.opts if n.startswith("--")]
        return _say(f"no such option {given}{_hint(given, names)}", 2)
    if message.startswith("No such command"):
        given = message.split("'")[1]
        return _say(f"no such command {given!r}{_hint(given, list(context.command.commands))}", 2)
    where = context.command_path if context else "hubel"
    return _say(f"{message}{_given(error, words)} (see '{where} --help')", 2)


def _given(error: typer.TyperException, words: list[str]) -> str:
    """ ", given 'many'" for the value that an option did not take."""
    for name in getattr(getattr(error, "param", None), "opts", ()):
        for word, after in zip(words, [*words[1:], None], strict=True):
            if word == name and after is not None:
                return f", given {after!r}"
            if word.startswith(f"{name}="):
                return f", given {word.removeprefix(f'{name}=')!r}"
    return ""


def _hint(given: str, allowed: list[str]) -> str:
    near = nearest(given, allowed)
    return f": did you mean {near}?" if near else f": allowed are {', '.join(allowed)}"
