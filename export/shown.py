"""How objects show themselves: a few lines in a terminal, a small table in a notebook."""

from abc import abstractmethod
from collections.abc import Collection
from html import escape
from itertools import islice

Facts = dict[str, str]
_NAMES = 3


class Shown:
    """What has a summary is printed as it: never the arrays and graphs that it holds.

    Example:
        >>> class Box(Shown):
        ...     def summary(self) -> Facts:
        ...         return {"content": "<nothing>"}
        >>> Box()
        Box
          content: <nothing>
        >>> Box()._repr_html_()
        '<table><caption>Box</caption><tr><th>content</th><td>&lt;nothing&gt;</td></tr></table>'
    """

    @abstractmethod
    def summary(self) -> Facts:
        """What there is to say in a few lines, by a word for each."""

    def __repr__(self) -> str:
        lines = (f"  {key}: {value}" for key, value in self.summary().items())
        return "\n".join([type(self).__name__, *lines])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """For notebooks; names come from files of strangers, so all of it is escaped."""
        rows = "".join(
            f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>"
            for key, value in self.summary().items()
        )
        return f"<table><caption>{escape(type(self).__name__)}</caption>{rows}</table>"


def some_names(names: Collection[str]) -> str:
    """The first few of many names.

    Example:
        >>> some_names(["a", "b", "c", "d", "e"]), some_names([])
        ('a, b, c, …', 'none')
    """
    shown = ", ".join(islice(names, _NAMES))
    return shown + ", …" * (len(names) > _NAMES) or "none"
