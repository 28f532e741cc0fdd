"""Text of strangers: shown as it is, obeyed nowhere."""

import pytest

from modelpress.export.safe_text import for_html, for_markdown, for_terminal, markdown_code


@pytest.mark.parametrize("letter", ["\x1b", "\x07", "\r", "\b", "\x9b", "\u202e", "\u200b", "\u2028", "\x00"])
def test_nothing_reaches_a_terminal_that_it_obeys_or_hides(letter):
    assert for_terminal(f"a{letter}b").isprintable()
    assert letter not in for_terminal(f"a{letter}b", lines=True)
    assert letter not in for_html(f"a{letter}b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# big", r"\# big"),
        ("> said", r"\> said"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("two\n\n# lines", "two # lines"),
        ("<img src=x onerror=y>", "&lt;img src=x onerror=y>"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("![a](b) [c][d] [e]: f", r"![a\](b) [c\][d] [e\]: f"),
        ("https://x.y www.z.org", r"https\://x.y www\.z.org"),
        ("*a* _b_ ~~c~~ `d` \\", r"\*a\* \_b\_ \~\~c\~\~ \`d\` \\"),
        ("a|b", r"a\|b"),
    ],
)
def test_markdown_shows_what_it_would_obey(text, expected):
    assert for_markdown(text) == expected


@pytest.mark.parametrize("text", ["layer1.0.conv_2", "98.12 %", "-0.5", "0.9 [0.8, 1.0]", "a -> b & c"])
def test_markdown_leaves_what_is_harmless_alone(text):
    assert for_markdown(text) == text


def test_what_is_markdown_already_is_not_escaped_again():
    assert for_markdown(for_markdown("a*b")) == r"a\*b"
    assert for_markdown(markdown_code("a*b")) == "`a*b`"


@pytest.mark.parametrize("text", ["`", "``", "a`b``c", "x`"])
def test_no_text_ends_its_code_span(text):
    shown = markdown_code(text)
    fence = shown[: len(shown) - len(shown.lstrip("`"))]
    assert shown.startswith(f"{fence} ")
    assert shown.endswith(f" {fence}")
    assert fence not in text


@pytest.mark.parametrize("space", ["\u00a0", "\u202f"])
def test_spaces_that_break_no_line_stay_spaces(space):
    assert for_terminal(f"batch{space}1") == f"batch{space}1"
