"""How much is told beside the answer: one setting for the process, read by the console; imports nothing heavy."""

from dataclasses import dataclass

from modelpress.export.errors import CommandLineError


@dataclass
class Verbosity:
    """What the options ``-q`` and ``-v`` ask for.

    Attributes:
        quiet: Errors only: no progress, no notes.
        verbose: Seconds beside every stage and note, and where in the code an error arose.
    """

    quiet: bool = False
    verbose: bool = False

    def ask(self, *, quiet: bool, verbose: bool) -> None:
        """Add what was given at one place of the command line.

        Raises:
            CommandLineError: Both are asked for.
        """
        self.quiet = self.quiet or quiet
        self.verbose = self.verbose or verbose
        if self.quiet and self.verbose:
            raise CommandLineError("-q tells less and -v tells more: give one of them")

    def reset(self) -> None:
        """Back to neither."""
        self.quiet = self.verbose = False


VERBOSITY = Verbosity()
