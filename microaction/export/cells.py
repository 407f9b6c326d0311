r"""Text in cells of tables that people open in spreadsheets: a name must stay the text that it is, whatever it looks like.

Excel and its relatives run text that begins like a formula, and turn text that looks like a number or a date into one. R and
pandas turn `NA` into a missing value. So the names of files and people are written by two rules, and `read_cell` undoes both:

1. A control character, a line break or a mark that reverses the direction of writing is written as a backslash, `u` and its four
   hexadecimal digits: `\u000a`. So is a backslash that would otherwise look like the beginning of one, and the underscore with
   which Excel's own notation `_x000A_` begins.
2. In CSV files, where all cells are text, an apostrophe stands before what a program would take for something else than text,
   and before an apostrophe. A comma or semicolon before something like a formula is written as in rule 1: programs differ in
   which of the two separates cells.
"""

import re
import unicodedata

APOSTROPHE = "'"
# Category Cc is control characters, Cs lone surrogates, Zl and Zp line and paragraph separators; U+FFFE and U+FFFF are not
# allowed in XML; the rest directs writing.
_ESCAPED = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
    r"|\\(?=u[0-9a-f]{4})|_(?=x[0-9A-Fa-f]{4}_)"
)
_ESCAPE = re.compile(r"\\u([0-9a-f]{4})")

FORMULA_MARKS = "=+-@"  # what a formula begins with, in spreadsheets that take Lotus 1-2-3's notation too
_BEFORE_FORMULA = re.compile(r"""[,;](?=[\s"']*[=+@＝＋＠－-])""")
_WORDS = frozenset({"true", "false", "na", "n/a", "#n/a", "nan", "null", "none", "inf", "infinity"})
# Months in the languages of Excel's most frequent regional settings begin so, without accents.
_MONTHS = (
    "jan|ene|gen|feb|fev|mar|maa|mrt|apr|avr|abr|mai|may|mag|mei|jun|jui|giu|jul|lug|aug|aou|ago|sep|set|okt|oct|ott|out|nov|dec|"
    "dez|dic"
)
_NUMBERS = r"[\d\s.,:;/()%$€£¥'-]"
_NUMBER_OR_DATE = re.compile(
    rf"{_NUMBERS}*+(?:(?:{_MONTHS})[a-z]*|e[+-]?|[ap]m?)?{_NUMBERS}*(?:\s[ap]m?)?", re.IGNORECASE
)


def plain_text(text: str) -> str:
    """Return a text without characters that control what is around it, by rule 1: for cells that are text in any case."""
    return _ESCAPED.sub(_escape, text)


def csv_text(text: str) -> str:
    """Return a text that programs take as text when they open a CSV file, by rules 1 and 2."""
    plain = _BEFORE_FORMULA.sub(_escape, plain_text(text))
    return APOSTROPHE + plain if plain.startswith(APOSTROPHE) or _is_taken_for_something_else(plain) else plain


def read_cell(cell: str) -> str:
    """Return the text that `csv_text` wrote."""
    return read_plain(cell.removeprefix(APOSTROPHE))


def read_plain(cell: str) -> str:
    """Return the text that `plain_text` wrote."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), cell)


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _is_taken_for_something_else(plain: str) -> bool:
    # Compatibility forms: a full-width equals sign begins a formula too. Without accents: März, février.
    seen = unicodedata.normalize("NFKD", plain).strip()
    seen = "".join(c for c in seen if not unicodedata.combining(c))
    if seen.startswith(tuple(FORMULA_MARKS)) or seen.lower() in _WORDS:
        return True
    return any(c.isdigit() for c in seen) and _NUMBER_OR_DATE.fullmatch(seen) is not None
