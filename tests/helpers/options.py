"""Command lines with other values than they are written with."""


def with_options(arguments, *options):
    """The arguments, with options in place of those of the same name; options that are replaced have one value."""
    names = {str(option) for option in options if str(option).startswith("-")}
    kept, follows = [], False
    for argument in arguments:
        if not follows and str(argument) not in names:
            kept.append(argument)
        follows = str(argument) in names
    return [*kept, *options]
