"""Groups whose commands are imported when they are called: a table of names, modules and lines of help.

`--help` and completion read the table alone.

Source: click's documentation, "Lazily loading subcommands".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from modelpress.export.errors import CommandLineError

MARKUP: Any = "rich"
"""Of every help text; the type is private to typer."""


@dataclass(frozen=True)
class Entry:
    """A command that is not imported yet.

    Attributes:
        module: Where it is; relative to `modelpress.toolkit.commands`. A command's module has a function `command` and
            a text `EXAMPLE`; a group's module has a `group`.
        about: One line of help: the first sentence of the command's own.
        panel: Heading that it is listed below.
    """

    module: str
    about: str
    panel: str | None = None

    def load(self, name: str) -> Any:
        """Import the module and make click's command of it."""
        # calling imports what the lists of commands have no use for
        from modelpress.toolkit.commands.calling import prepared

        module = import_module(f"modelpress.toolkit.commands.{self.module}")
        if hasattr(module, "group"):
            app: typer.Typer = module.group
        else:
            app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=MARKUP)
            app.command(name, cls=_OnceEach, epilog=example(module.EXAMPLE))(prepared(module.command))
        command = typer.main.get_command(app)
        command.name = name
        return command


def example(lines: str) -> str:
    """The end of a help text: command lines to copy, one below the other.

    Example:
        >>> example("modelpress inspect model.press")
        '[b]Example[/]\\n\\nmodelpress inspect model.press'
    """
    # brackets are markup, and single line ends would be joined
    shown = lines.strip().replace("[", r"\[").replace("\n", "\n\n")
    return f"[b]Example[/]\n\n{shown}"


class _OnceEach(TyperCommand):
    """A command that refuses an option given twice, where the first value would be forgotten without a word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises a usage error for such an option."""
        given = self.make_parser(ctx).parse_args(args=list(args))[2]
        for option in given:
            single = not (
                option.multiple or getattr(option, "is_flag", False) or option.param_type_name == "argument"
            )
            if single and given.count(option) > 1:
                raise CommandLineError(f"{option.opts[-1]} is given twice; give it once")
        return super().parse_args(ctx, args)


class LazyGroup(TyperGroup):
    """Lists the commands of `entries`, and imports the one that is called."""

    entries: ClassVar[Mapping[str, Entry]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, entry in self.entries.items():
            self.commands[name] = TyperCommand(
                name, help=entry.about, rich_help_panel=entry.panel, rich_markup_mode=MARKUP
            )

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments name, imported."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else self.entries[name].load(name), rest


def lazy_group(commands: Mapping[str, Entry], *, base: type[LazyGroup] = LazyGroup) -> type[LazyGroup]:
    """A group of these commands, for typer's `cls`."""
    return type("Group", (base,), {"entries": dict(commands)})
