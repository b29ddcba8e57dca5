"""Every command on a page, run or not, is one that the programs accept."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from .pages import ROOT, blocks, indented_blocks, load_command_line, pages, prose

CPP_OPTIONS = set(
    re.findall(r'name == "(--?[a-z-]+)"', (ROOT / "runtime/cpp/tools/options.cpp").read_text())
)
TARGETS = set(re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
OTHERS = {
    "--no-build-isolation",  # pip
    "--relative",  # rsync
    "--piece-mb",  # glesam_benchmark.gpu.pack
    "--seconds",  # glesam_benchmark.gpu.run, which starts without this project's environment
}
"""Options in running text that belong to other programs."""


@pytest.fixture(scope="module")
def programs() -> dict[str, Any]:
    return load_command_line().commands()


def commands_of(code: str) -> Iterator[list[str]]:
    """Yield each simple command of a piece of shell as its words."""
    for line in code.replace("\\\n", " ").splitlines():
        if "glesam" not in line and "make" not in line:
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;()<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set("|&;()"):
                words.append(word)
                continue
            while words and re.match(r"^\w+=|^(sudo|nice)$", words[0]):
                words.pop(0)
            if words:
                yield words
            words = []


def check(programs: dict[str, Any], words: list[str]) -> str | None:
    """Return what is wrong with a command of this project, None if nothing is or it is another."""
    name, arguments = words[0].rpartition("/")[2], words[1:]
    if name == "make":
        targets = [w for w in arguments if not re.match(r"^-|\w+=", w)]
        wrong = [target for target in targets if target not in TARGETS]
        return f"make has no target {wrong[0]!r}" if wrong else None
    if name == "glesam-cpp":
        wrong = [w for w in arguments if re.match(r"^--?[a-z]", w) and w not in CPP_OPTIONS]
        return f"glesam-cpp has no option {wrong[0]!r}" if wrong else None
    if not name.startswith("glesam-"):
        return None
    if name not in programs:
        return f"there is no command {name!r}"
    return parse(programs[name], name, arguments)


def parse(command: Any, name: str, arguments: list[str]) -> str | None:
    """Parse a command line as the program does; return its complaint."""
    try:
        context = command.make_context(name, list(arguments))
    except Exception as error:  # noqa: BLE001 - Typer's own and click's have no common base
        # --help and --version end a program by an exception without a message.
        return None if type(error).__name__ == "Exit" else f"{name}: {error}"
    subcommands = getattr(command, "commands", None)
    if not subcommands:
        return None
    rest = [*getattr(context, "_protected_args", []), *context.args]
    if not rest:
        return None
    if rest[0] not in subcommands:
        return f"{name} has no command {rest[0]!r}"
    return parse(subcommands[rest[0]], f"{name} {rest[0]}", rest[1:])


def options_of(command: Any) -> set[str]:
    """Return the names of all options of a command and its subcommands."""
    options = [p for p in command.params if p.param_type_name == "option"]
    names = {name for p in options for name in (*p.opts, *p.secondary_opts)}
    for sub in getattr(command, "commands", {}).values():
        names |= options_of(sub)
    return names | {"--help"}


@pytest.mark.parametrize("page", pages())
def test_commands_in_blocks_parse(page: str, programs: dict[str, Any]) -> None:
    wrong = []
    for block in blocks(page):
        if block.language == "bash":
            for words in commands_of(block.code):
                if complaint := check(programs, words):
                    wrong.append(f"{block}: {' '.join(words)}: {complaint}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", pages())
def test_options_in_running_text_exist(page: str, programs: dict[str, Any]) -> None:
    """`--option` alone is one of any program, `glesam-run --option` one of that program."""
    everywhere = set().union(*map(options_of, programs.values())) | CPP_OPTIONS | OTHERS
    wrong = []
    for span in re.findall(r"`([^`\n]+)`", prose(page)):
        words = span.split()
        if not words or not words[0].startswith(("glesam-", "--", "make ")):
            continue
        name = words[0]
        if name.startswith("glesam-") and name not in programs and name != "glesam-cpp":
            if re.fullmatch(r"glesam-(runtime|deploy)(\[.*|==.*)?", name) is None:
                wrong.append(f"{page}: `{span}`: there is no command {name!r}")
            continue
        known = options_of(programs[name]) if name in programs else everywhere
        wrong += [
            f"{page}: `{span}`: there is no option {word!r}"
            for word in re.findall(r"(?<!\S)--[a-z][\w-]*", span)
            if word not in known
        ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", pages())
def test_make_targets_in_running_text_exist(page: str) -> None:
    named = re.findall(r"`make ([a-z][\w-]*)`", prose(page))
    assert not [target for target in named if target not in TARGETS]


@pytest.mark.parametrize("page", pages())
def test_code_is_fenced(page: str) -> None:
    """An indented block has no language: nothing could tell whether to run it."""
    assert not indented_blocks(page), f"{page}: indented code at these lines"


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_every_command_is_described(programs: dict[str, Any]) -> None:
    """The reference has each option of each program."""
    describe = load_command_line().markdown
    for name, program in programs.items():
        text = describe(name, program)
        missing = [option for option in options_of(program) - {"--help"} if option not in text]
        assert not missing, f"{name}: {missing}"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("glesam-run a.png --points 1,2 -o out/", None),
        ("glesam-run a.png --point 1,2", "No such option"),
        ("glesam-run a.png --streams many", "valid integer"),
        ("glesam-calibrate bundle/ images/ --int8 -o out/", None),
        ("glesam-export onx --preset nano -o out/", "no command 'onx'"),
        ("glesam-export onnx --preset nano", "Missing"),
        ("X=1 .venv/bin/glesam-nothing && ls", "no command 'glesam-nothing'"),
        ("make test && make nothing", "no target 'nothing'"),
        ("out/cpp/tools/glesam-cpp a.png --pionts 1,2", "no option '--pionts'"),
    ],
)
def test_a_wrong_command_is_found(
    line: str, complaint: str | None, programs: dict[str, Any]
) -> None:
    found = [each for words in commands_of(line) if (each := check(programs, words))]
    if complaint is None:
        assert not found
    else:
        assert len(found) == 1
        assert complaint in found[0]
