"""``python -m modelpress``: the command line."""

from modelpress.toolkit.cli import main

if __name__ == "__main__":
    main()
