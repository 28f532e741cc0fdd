"""``python -m modelpress``: the command line."""

from modelpress.toolkit.commands.cli import main

if __name__ == "__main__":
    main()
