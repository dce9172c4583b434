r"""Whether two short LaTeX answers mean the same thing: numbers, lists, sets, points, intervals, formulas.

An answer is first read as structure (list, set, point or interval, union, matrix, ratio, assignment, number
with unit, word). Only what is left, a formula, goes to latex2sympy and Math-Verify's `verify`. So brackets,
order and counts are compared as written, and plain numbers are compared exactly and at once.

What counts as the same
- A bare list and a set have no order; a list keeps its repetitions. `(1,2)` is ordered, and `[1,2]`, `(1,2]`
  and `{1,2}` differ from it and from each other. With `ordered`, a bare list is compared in order.
- Numbers are exact: `0.33` is not `1/3`. A decimal with six places or more that rounds right is accepted.
  `50\%` is `0.5`; it is `50` only where the question asks for a percentage.
- A unit may be missing on either side, two units must be the same one. `\$`, degrees and text behind a number
  are units. Nothing is converted: `5 cm` is not `50 mm`, and `30^\circ` is not `\pi/6`.
- `x=3` is `3` but not `y=3`. A chain `a=b=c` needs every value right. An equation is another one if their
  differences are proportional. A base (`12_8`) may be missing where the gold has it, never be another one.
- `1<x<2` is `(1,2)`, `x>1` is `(1,\infty)`.

Left out: a point without its brackets (`1,2` for `(1,2)`), vectors written once as a column and once as a
tuple, the form that a question demands (factored, simplified), decimal commas, and time: sympy may take for
ever, so the caller needs a limit from outside.

Safety. No text of an answer is evaluated as Python code. latex2sympy is an ANTLR grammar; only its numbers
go through `parse_expr`, and those are read here instead. Math-Verify's `parse`, whose other parser calls
`parse_expr` on expressions, is not used. sympy writes and runs code of its own: for polynomials, from the
number of variables alone, and for infinite sums, from the formula. So whatever contains a LaTeX command
outside of `PLAIN_COMMANDS` (sums, integrals, limits, named operators) is parsed in a throw-away fork only.
Not covered: time and memory, which towers of powers and repeated factorials use up as far as they are let,
and faults in sympy, which stay in the process that judges the next answer unless they need a command that
is not plain.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from prorl_study.judges.fresh import require_fresh_fork

PLAIN_COMMANDS = frozenset(
    "frac sqrt pi cdot times div pm mp text infty circ cup cap setminus mathbb begin end binom "
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log lg exp "
    "lvert rvert vert lfloor rfloor lceil rceil overline bar vec hat "
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho "
    "sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega "
    "left right hbar ell angle triangle le ge ne in emptyset to mid".split()
)
"""LaTeX commands whose parsing only builds an expression."""

ROUNDED_PLACES = 6
"""Decimal places from which on a rounded value stands for the exact one."""
MAX_EXPONENT_DIGITS = 3


@dataclass(frozen=True)
class Part:
    """One piece of an answer; which fields are used depends on `kind`."""

    kind: str
    """number, word, list, set, group, union, matrix, ratio, chain, relation or formula."""
    text: str = ""
    """As normalised; for a group its two brackets."""
    parts: tuple[Part, ...] = ()
    name: str = ""
    """The left-hand side of an assignment, the operator of a relation, the base of a number."""
    value: Fraction | None = None
    places: int = 0
    """Decimal places of a number that was written as a decimal."""
    percent: bool = False
    unit: str = ""


# --- spelling ---------------------------------------------------------------------------------------------

_SPELLINGS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\s*\.?(?=\s*[\[\](){}|\\.]|$)", ""),
        (r"\\(?:displaystyle|limits|textstyle|mathstrut|strut|boldsymbol|bm)(?![A-Za-z])", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"(?<=\d)\s*(?:,\\!|\\!,|\{,\}|,\{\}\\!)\s*(?=\d{3})", ""),
        (r"(?<!\\)\\!", ""),
        (r"(?<!\\)\\(?:[,;: ]|q?quad(?![A-Za-z])|thinspace|enspace)|~", " "),
        (r"\\(?:math(?:rm|bf|it|sf|tt|normal)|textbf|textrm|textit|textsf|textnormal|mbox|hbox|rm|operatorname)\s*\{",
         r"\\text{"),
        (r"\\leq?(?:slant)?(?![A-Za-z])|≤", r"\\le "),
        (r"\\geq?(?:slant)?(?![A-Za-z])|≥", r"\\ge "),
        (r"\\neq?(?![A-Za-z])|≠", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\(?:lbrace|\{)", r"\\{"),
        (r"\\(?:rbrace|\})", r"\\}"),
        (r"\\(?:langle|lgroup)(?![A-Za-z])", "("),
        (r"\\(?:rangle|rgroup)(?![A-Za-z])", ")"),
        (r"\\(?:lbrack)(?![A-Za-z])", "["),
        (r"\\(?:rbrack)(?![A-Za-z])", "]"),
        (r"\\(?:varnothing|empty)(?![A-Za-z])|∅|\\text\{\s*Ø\s*\}|\\O(?![A-Za-z])", r"\\emptyset "),
        (r"\\(?:land|wedge)(?![A-Za-z])", r"\\text{ and }"),
        (r"\\(?:lor|vee)(?![A-Za-z])", r"\\text{ or }"),
        (r"\\(?:approx|simeq|thickapprox)(?![A-Za-z])", "≈"),
        (r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?:s)?(?![A-Za-z])|°|\^\s*\{?\s*\\degree\s*\}?", r"^\\circ "),
        (r"\\ast(?![A-Za-z])|·|⋅", r"\\cdot "),
        ("×", r"\\times "), ("÷", r"\\div "), ("π", r"\\pi "), ("∞", r"\\infty "), ("∪", r"\\cup "),
        ("∩", r"\\cap "), ("±", r"\\pm "), ("[−–]", "-"), ("²", "^2"), ("³", "^3"), ("√", r"\\sqrt "),
        ("∈", r"\\in "), (r"\\bigcup(?![A-Za-z])", r"\\cup "), (r"\\backslash(?![A-Za-z])", r"\\setminus "),
        (r"\s+", " "),
    )
]  # fmt: skip
_BARE_FRACTION = re.compile(r"\\frac\s*(?:(\d)\s*(\d)|\{([^{}]*)\}\s*(\w)|(\d)\s*\{([^{}]*)\})")


def _brace(match: re.Match[str]) -> str:
    top, bottom = (group for group in match.groups() if group is not None)
    return rf"\frac{{{top}}}{{{bottom}}}"


def _closing(text: str, at: int) -> int:
    """Index of the bracket that closes the one at `at`; -1 where there is none."""
    depth = 0
    for i in range(at, len(text)):
        if text[i] in "([{":
            depth += 1
        elif text[i] in ")]}":
            depth -= 1
            if depth == 0:
                return i
    return -1


def normalise(text: str) -> str:
    r"""One spelling for what looks alike: fractions, spaces, `$`, signs, `\left`, an outer `\boxed{}`."""
    text = re.sub(r"\\[()\[\]]|(?<!\\)\$", " ", text)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    text = _BARE_FRACTION.sub(_brace, text)
    while True:
        before = text
        text = re.sub(r"^=\s*|\s*(?<!\\)\.\s*$", "", text.strip())
        for opener in (r"\boxed{", r"\fbox{", "{"):
            if text.startswith(opener) and _closing(text, len(opener) - 1) == len(text) - 1:
                text = text[len(opener) : -1]
        if text == before:
            return text


# --- units ------------------------------------------------------------------------------------------------

_UNIT_WORDS = {
    word: symbol
    for symbol, words in {
        "m": "meter metre", "cm": "centimeter centimetre", "mm": "millimeter millimetre",
        "nm": "nanometer nanometre", "μm": "um micrometer micrometre micron", "km": "kilometer kilometre",
        "in": "inch inches", "ft": "foot feet", "yd": "yard", "mi": "mile", "g": "gram gm",
        "kg": "kilogram kilo", "mg": "milligram", "t": "tonne", "lb": "pound", "oz": "ounce",
        "s": "second sec", "ms": "millisecond", "min": "minute", "h": "hour hr", "day": "", "week": "",
        "month": "", "year": "yr", "L": "l liter litre", "mL": "ml milliliter millilitre", "N": "newton",
        "kN": "kilonewton", "J": "joule", "kJ": "kilojoule", "W": "watt", "kW": "kilowatt", "V": "volt",
        "A": "amp ampere", "ohm": "Ω", "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz",
        "Pa": "pascal", "kPa": "kilopascal", "K": "kelvin", "mol": "mole", "eV": "electronvolt",
        "T": "tesla", "F": "farad", "C": "coulomb", "dollar": "usd", "cent": "", "°": "degree deg",
        "°C": "celsius degreecelsius", "°F": "fahrenheit degreefahrenheit", "rad": "radian", "unit": "",
        "mph": "", "kph": "kmh", "rpm": "", "atm": "atmosphere", "bar": "", "cal": "calorie", "kcal": "",
        "mA": "milliamp milliampere", "mV": "millivolt", "kV": "kilovolt", "mW": "milliwatt",
        "MW": "megawatt", "MJ": "megajoule", "MPa": "megapascal", "keV": "", "MeV": "", "GeV": "",
        "person": "people",
    }.items()
    for word in (symbol, *words.split())
}  # fmt: skip
"""Spelling (in its own case for symbols, else lower case and singular) to symbol."""
_ATTACHED_UNITS = frozenset(
    "cm mm km kg mg mL ml ft mi lb oz mph kph kJ kW kPa kHz Hz eV hr min sec in yd nm".split()
)
_NOT_UNITS = re.compile(
    r"\b(?:and|or|not|no|more|less|least|most|than|about|over|under|million|billion|trillion|thousand|hundred|"
    r"dozens?|squared?|cubed|times|factorial|base|mod|if|when|for|where|with|minus|plus|half|halves|thirds?|"
    r"quarters?|remainder|except|is|are)\b",
    re.IGNORECASE,
)
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}


def _unit_token(word: str) -> str:
    """Symbol of one unit, or the word itself in lower case and singular."""
    for spelling in (word, word.lower(), word.lower().removesuffix("s"), word.lower().removesuffix("es")):
        if spelling in _UNIT_WORDS:
            return _UNIT_WORDS[spelling]
    return word.lower().removesuffix("s")


def unit_name(text: str) -> str | None:
    r"""Canonical name of a unit, one for all its spellings (`m/s`, `\text{m s}^{-1}`, `meters per second`).

    A single unknown word is its own unit (`apples`). None where the text cannot be a unit.
    """
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text.replace(r"\$", " dollar ").replace(r"\%", "%"))
    text = re.sub(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2", text)
    text = text.replace(r"\Omega", "ohm").replace(r"\mu", "μ").replace("µ", "μ").replace(r"^\circ", "°")
    text = re.sub(r"\\(?:cdot|times)(?![A-Za-z])|[·*]", " ", text)
    text = re.sub(r"°\s*(?=[CF]\b)|degrees?\s*(?=(?:celsius|fahrenheit|[CF])\b)", "°", text)
    text = re.sub(r"°(?=celsius|fahrenheit)", "", text, flags=re.IGNORECASE)
    text = re.sub(r"\bper\b", "/", text.replace("²", "^2").replace("³", "^3").replace("⁻", "^-"))
    text = re.sub(r"\b(?:sq(?:uare)?\.?)\s+(\w+)", r"\1^2", text)
    text = re.sub(r"\b(?:cu(?:bic)?\.?)\s+(\w+)", r"\1^3", text)
    text = re.sub(r"(\w+)\s+squared\b", r"\1^2", re.sub(r"(\w+)\s+cubed\b", r"\1^3", text))
    text = text.replace("(", " ").replace(")", " ").strip(" .")
    if not text or _NOT_UNITS.search(text):
        return None
    powers: dict[str, int] = {}
    sign, at = 1, 0
    token = re.compile(r"\s*(?:(/)|([^\W\d_]+|°[CF]?|%)(?:\s*\^\s*\{?\s*([-+]?\d)\s*\}?)?)\s*")
    while at < len(text):
        match = token.match(text, at)
        if not match:
            return None
        at = match.end()
        if match.group(1):
            sign = -1
            continue
        symbol = _unit_token(match.group(2))
        powers[symbol] = powers.get(symbol, 0) + sign * int(match.group(3) or 1)
        # `J/kg K` divides by both, as in print; `m/s kg` is not in use.
    return (
        "·".join(symbol if n == 1 else f"{symbol}^{n}" for symbol, n in sorted(powers.items()) if n) or None
    )


_TAIL = re.compile(
    r"(?P<body>.*?)\s*(?P<unit>(?:\\text\s*\{[^{}]*\}(?:\s*\^\s*\{?-?\d\}?)?[\s/]*|\^\\circ\s*(?:\\text\{[CF]\}|[CF]\b)?)+)",
    re.DOTALL,
)
_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_PLAIN_TAIL = re.compile(
    rf"(?P<body>[-+]?\s*(?:{_NUMBER}|\\frac\{{\d+\}}\{{\d+\}}|{_NUMBER}/{_NUMBER}))(?P<space>\s*)"
    r"(?P<unit>[A-Za-z][A-Za-z .]*(?:\^\{?-?\d\}?)?(?:\s*/\s*[A-Za-z]+(?:\^\{?-?\d\}?)?)?)"
)


def _strip_unit(text: str) -> tuple[str, str, int]:
    r"""The text less its unit, the unit's name, and the power of ten that stood there as a word.

    In plain letters only a known unit, or a whole word after a space, is a unit: `5x` is a product.
    """
    if text.startswith(r"\$"):
        return text[2:].strip(), "dollar", 0
    if re.match(r"-\s*\\\$", text):
        return "-" + text.partition(r"\$")[2].strip(), "dollar", 0
    match = _TAIL.fullmatch(text)
    if match and match["body"] and not match["body"].endswith(("^", "_", r"\sqrt")):
        words = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", match["unit"]).strip()
        if words.lower() in _SCALES:
            return match["body"], "", _SCALES[words.lower()]
        unit = unit_name(match["unit"])
        if unit:
            return match["body"], unit, 0
    match = _PLAIN_TAIL.fullmatch(text)
    if match:
        words = match["unit"].strip()
        if words.lower() in _SCALES:
            return match["body"], "", _SCALES[words.lower()]
        first = re.split(r"[^A-Za-z]", words)[0]
        known = (
            first in _ATTACHED_UNITS
            or (first in _UNIT_WORDS or _unit_token(first) in _UNIT_WORDS)
            and match["space"]
        )
        noun = match["space"] and len(first) > 3 and re.search("[aeiouy]", first)
        if (known or noun) and (unit := unit_name(words)):
            return match["body"], unit, 0
    return text, "", 0


# --- numbers ----------------------------------------------------------------------------------------------

_DECIMAL = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<number>{_NUMBER})"
    rf"(?:[eE](?P<e>[-+]?\d{{1,{MAX_EXPONENT_DIGITS}}})"
    rf"|\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{{\s*(?P<power>[-+]?\s*\d{{1,{MAX_EXPONENT_DIGITS}}})\s*\}}|(?P<digit>\d)))?"
)
_QUOTIENT = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:(?P<whole>\d+)\s*)?\\frac\{{\s*(?P<top>[-+]?\s*{_NUMBER})\s*\}}\{{\s*(?P<bottom>[-+]?\s*{_NUMBER})\s*\}}"
)
_SLASH = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:(?P<whole>\d+)\s+)?(?P<top>{_NUMBER})\s*/\s*(?P<bottom>{_NUMBER})"
)
_REPEATING = re.compile(
    r"(?P<sign>[-+]?)\s*(?P<whole>\d*)\.(?P<fixed>\d*)\\(?:overline|bar)\{(?P<again>\d+)\}"
)
_GROUPED = re.compile(r"(?<![\d.,])(\d{1,3})((?:,\d{3})+)(?!\d|,\d)")
_SPACED = re.compile(r"([-+]?\d{1,3})((?: \d{3})+)((?:\.\d+)?)")
_BASED = re.compile(
    r"(?P<digits>\d[\dA-F]*)\s*_\s*(?:\{\s*(?:\\text\{)?\s*(?P<base>\w+)\s*\}?\s*\}|(?P<digit>\d))"
)
_BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
          "nine": "9", "ten": "10", "twelve": "12", "sixteen": "16"}  # fmt: skip


def rational(text: str) -> tuple[Fraction, int] | None:
    """Value and decimal places of a plain number (integer, decimal, fraction, mixed, scientific), or None."""
    if match := _DECIMAL.fullmatch(text):
        power = int((match["e"] or match["power"] or match["digit"] or "0").replace(" ", ""))
        value = Fraction(match["sign"] + match["number"]) * Fraction(10) ** power
        return value, len(match["number"].partition(".")[2]) - power
    if match := _QUOTIENT.fullmatch(text) or _SLASH.fullmatch(text):
        top, bottom = (Fraction(match[name].replace(" ", "")) for name in ("top", "bottom"))
        if bottom == 0 or (match["whole"] and not (0 <= top and 0 < bottom)):
            return None
        value = int(match["whole"] or 0) + top / bottom
        return (-value if match["sign"] == "-" else value), 0
    if match := _REPEATING.fullmatch(text):
        fixed, again = match["fixed"], match["again"]
        value = Fraction(int((match["whole"] or "0") + fixed))
        value = (value + Fraction(int(again), 10 ** len(again) - 1)) / 10 ** len(fixed)
        return (-value if match["sign"] == "-" else value), 0
    return None


def _rounds_to(decimal: Part, exact: Fraction) -> bool:
    if decimal.places < ROUNDED_PLACES or decimal.value is None or abs(exact) < Fraction(1, 100):
        return False
    return round(decimal.value, ROUNDED_PLACES) == round(exact, ROUNDED_PLACES)


# --- reading ----------------------------------------------------------------------------------------------

_OPENERS, _CLOSERS = "([{", ")]}"


def _split(text: str, separator: re.Pattern[str]) -> list[str]:
    r"""The text cut at separators outside of all brackets, braces and `\begin`...`\end`."""
    parts, start, depth, at = [], 0, 0, 0
    while at < len(text):
        if depth == 0 and (match := separator.match(text, at)) and match.end() > at:
            parts.append(text[start : match.start()])
            start = at = match.end()
            continue
        if text[at] in _OPENERS or text.startswith(r"\begin{", at):
            depth += 1
        elif text[at] in _CLOSERS or text.startswith(r"\end{", at):
            depth -= 1
        at += 1
    return [part.strip() for part in (*parts, text[start:])]


_COMMA = re.compile(
    r"[,;]\s*(?:(?:\\text\s*\{\s*)?(?:and|or)(?![A-Za-z])\s*\}?)?"
    r"|(?:\\text\s*\{\s*(?:,\s*)?(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))"
)
_CUP, _COLON, _EQUAL = re.compile(r"\\cup(?![A-Za-z])"), re.compile(":"), re.compile(r"=|≈")
_COMPARE = re.compile(r"\\(?:le|ge|ne)(?![A-Za-z])|[<>]")
_ROW, _CELL = re.compile(r"\\\\(?:\[[^\]]*\])?"), re.compile("&")
_MATRIX = re.compile(r"\\begin\{([pb]matrix|array|matrix)\}(?:\{[lcr|]+\})?(.*)\\end\{\1\}", re.DOTALL)
_NAME = re.compile(
    r"(?:\\(?:angle|triangle)\s*)?(?:[A-Za-z]{1,4}|\\[A-Za-z]+|\\text\s*\{[^{}]*\})'*"
    r"(?:_(?:\w|\{[^{}]*\}))?(?:\s*\([A-Za-z, ]+\))?"
)
_WORD = re.compile(r"\\text\s*\{([^{}]*)\}[.!]?|([A-Za-z][A-Za-z' -]*[A-Za-z]{2})")
_EMPTY = re.compile(
    r"\\emptyset|\\\{\s*\\\}|(?:there (?:is|are) )?no (?:real )?(?:solutions?|roots?)|none", re.IGNORECASE
)
_EVERYTHING = re.compile(r"all real numbers|\\text\{\s*all real numbers\s*\}", re.IGNORECASE)
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\{\s*(?:\\?%|percent|per cent)\s*\}|percent|per cent)$")
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne"}
_INFINITY = Part("formula", r"\infty")
_MINUS_INFINITY = Part("formula", r"-\infty")


def _word(text: str) -> str:
    """A word in lower case without its punctuation; single letters keep their case."""
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).strip(" .!'\"")
    text = text[1:-1] if re.fullmatch(r"\([A-Za-z]\)", text) else text
    text = re.sub(r"[\s_-]+", " ", text)
    return text if len(text) == 1 else text.lower()


def _interval(pieces: list[str], signs: list[str]) -> Part | None:
    r"""`a < x \le b` or `x > a` as the interval that it means; None where it is something else."""
    if len(signs) == 1:
        left, right = pieces
        (sign,) = signs
        if not _NAME.fullmatch(left):
            left, right, sign = right, left, _FLIPPED[sign]
        if not _NAME.fullmatch(left) or re.search(
            r"(?<!\\)[a-z]", right.replace("frac", "").replace("sqrt", "").replace("pi", "")
        ):
            return None
        end = read(right)
        if sign in ("<", r"\le"):
            return Part("group", "()" if sign == "<" else "(]", (_MINUS_INFINITY, end), name=left)
        if sign in (">", r"\ge"):
            return Part("group", "()" if sign == ">" else "[)", (end, _INFINITY), name=left)
        return None
    low, name, high = pieces
    if {*signs} <= {">", r"\ge"}:
        low, high, signs = high, low, [_FLIPPED[sign] for sign in reversed(signs)]
    if not _NAME.fullmatch(name) or not {*signs} <= {"<", r"\le"}:
        return None
    brackets = ("(" if signs[0] == "<" else "[") + (")" if signs[1] == "<" else "]")
    return Part("group", brackets, (read(low), read(high)), name=name)


def _plus_minus(text: str) -> list[str]:
    r"""`3 \pm x` as two texts; any other text alone."""
    pieces = re.split(r"\\(pm|mp)(?![A-Za-z])", text)
    if "pm" not in pieces[1::2]:
        return [text]
    both = []
    for upper in ("pm", "mp"):
        signed = [{upper: "+"}.get(piece, "-") if i % 2 else piece for i, piece in enumerate(pieces)]
        both.append(re.sub(r"^\s*\+\s*", "", "".join(signed)))
    return both


def _enclosed(text: str, opener: str, closer: str) -> str | None:
    """What stands between the two brackets if they are one pair around the whole text."""
    if not (text.startswith(opener) and text.endswith(closer)) or len(text) < len(opener) + len(closer):
        return None
    return text[len(opener) : -len(closer)] if _closing(text, len(opener) - 1) == len(text) - 1 else None


@lru_cache(maxsize=4096)
def read(text: str, ordered: bool = False) -> Part:
    """Structure of a normalised answer. `ordered` says that commas separate a list, never thousands."""
    text = text.strip()
    if not ordered and not text.startswith(("(", "[", r"\{")):
        text = _GROUPED.sub(lambda m: m[1] + m[2].replace(",", ""), text)
    if _EMPTY.fullmatch(_word(text)) or _EMPTY.fullmatch(text):
        return Part("set", r"\emptyset")
    if _EVERYTHING.fullmatch(text):
        text = r"\mathbb{R}"
    items = [piece for item in _split(text, _COMMA) for piece in _plus_minus(item)]
    if not all(items):
        return Part("formula", text)
    return _list(text, items) if len(items) > 1 else _single(text)


def _list(text: str, items: list[str]) -> Part:
    parts = tuple(read(item) for item in items)
    # `x<1 or x>3` is a union; the name of its variable is that of the first piece.
    intervals = all(part.kind == "group" and part.name for part in parts)
    if intervals and len({part.name for part in parts}) == 1 and re.search(r"(?<![a-z])or(?![a-z])", text):
        return Part("union", text, parts)
    return Part("list", text, parts)


def _single(text: str) -> Part:
    """One item: neither a list nor two signs."""
    if re.search(r"\\in(?![A-Za-z])", text):
        name, member, rest = (*_split(text, re.compile(r"\\in(?![A-Za-z])")), "")[:3]
        if not rest and member and _NAME.fullmatch(name):
            return Part("chain", text, (read(member),), name=name)
    pieces = _split(text, _EQUAL)
    if len(pieces) > 1 and all(pieces):
        return _chain(text, pieces)
    pieces = _split(text, _COMPARE)
    if 2 <= len(pieces) <= 3 and all(pieces):
        signs = [match.strip() for match in _COMPARE.findall(text)]
        if len(signs) == len(pieces) - 1:
            interval = _interval(pieces, signs)
            if interval:
                return interval
            if len(signs) == 1:
                return Part(
                    "relation", text, tuple(Part("formula", piece) for piece in pieces), name=signs[0]
                )
    if match := _MATRIX.fullmatch(text):
        rows = [row for row in _split(match[2], _ROW) if row]
        return Part(
            "matrix", text, tuple(Part("list", row, tuple(map(read, _split(row, _CELL)))) for row in rows)
        )
    pieces = _split(text, _COLON)
    if len(pieces) > 1 and all(pieces):
        return Part("ratio", text, tuple(map(_single, pieces)))
    pieces = _split(text, _CUP)
    if len(pieces) > 1 and all(pieces):
        return Part("union", text, tuple(map(_single, pieces)))
    if (inner := _enclosed(text, r"\{", r"\}")) is not None:
        items = [piece for item in _split(inner, _COMMA) if item for piece in _plus_minus(item)]
        # A condition, `\{x \mid x>0\}`, is left to string comparison.
        if not re.search(r"\\mid(?![A-Za-z])|\||:", inner):
            return Part("set", text, tuple(map(read, items)))
        return Part("formula", text)
    for opener in "([":
        for closer in ")]":
            if (inner := _enclosed(text, opener, closer)) is None:
                continue
            items = _split(inner, _COMMA)
            if len(items) > 1 and all(items):
                return Part("group", opener + closer, tuple(map(read, items)))
            if opener + closer == "()" and not re.fullmatch("[A-Za-z]", inner.strip()):
                return _single(inner.strip())
    return _scalar(text)


def _chain(text: str, pieces: list[str]) -> Part:
    if not _NAME.fullmatch(pieces[0]) and len(pieces) == 2 and "≈" not in text and _NAME.fullmatch(pieces[1]):
        pieces = pieces[::-1]
    name = ""
    if _NAME.fullmatch(pieces[0]):
        name, pieces = re.sub(r"\s", "", pieces[0]), pieces[1:]
    if "≈" in text:
        pieces = pieces[:1]
    return Part("chain", text, tuple(map(_single, pieces)), name=name)


def _scalar(text: str) -> Part:
    """A number, a word or a formula."""
    if match := _BASED.fullmatch(text):
        base = (match["base"] or match["digit"]).lower()
        return Part("number", match["digits"], name=_BASES.get(base, base), value=None)
    percent = _PERCENT.search(text)
    body = text[: percent.start()] if percent else text
    body = body.strip()
    if _WORD.fullmatch(text) and not percent:
        return Part("word", text)
    body, unit, power = (body, "", 0) if percent else _strip_unit(body)
    if match := _SPACED.fullmatch(body):
        body = match[1] + match[2].replace(" ", "") + match[3]
    inner = _enclosed(body, "(", ")")
    number = rational(inner if inner is not None else body)
    if number is None:
        if power:
            return Part("formula", text)
        return Part("formula", rf"\frac{{{body}}}{{100}}" if percent else body, unit=unit)
    value, places = number
    value *= Fraction(10) ** power
    if percent:
        return Part("number", body, value=value / 100, places=places + 2, percent=True)
    return Part("number", body, value=value, places=places, unit=unit)


# --- comparing --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """What of the question bears on what counts as the same answer."""

    ordered: bool = False
    percent: bool = False
    base: bool = False
    positive: bool = False


def same(
    gold: str, answer: str, *, ordered: bool = False, positive: bool = False, question: str = ""
) -> bool:
    """Whether the answer means what the gold means.

    `question` is the question's text: it says whether a percentage or a base was asked for. With
    `positive`, the symbols of a formula stand for positive quantities. Raises NeedsFreshFork where the
    comparison must not run in this process, and nothing else; may take for ever.
    """
    percent = bool(re.search(r"%|percent|per cent", question, re.IGNORECASE))
    base = bool(re.search(r"\bbases?\b", question, re.IGNORECASE))
    asked = Question(ordered, percent, base, positive)
    gold, answer = normalise(gold), normalise(answer)
    if not gold or not answer:
        return False
    return gold == answer or _equal(read(gold, ordered), read(answer, ordered), asked, top=True)


def _equal(gold: Part, answer: Part, asked: Question, top: bool = False) -> bool:
    if gold == answer:
        return True
    kinds = gold.kind, answer.kind
    if "chain" in kinds:
        return _equal_chains(gold, answer, asked)
    if "word" in kinds:
        return _word(gold.text) == _word(answer.text)
    if kinds == ("number", "number"):
        return _equal_numbers(gold, answer, asked)
    if top and asked.ordered and {"list", "set", "group"} & {*kinds}:
        return len(gold.parts) == len(answer.parts) and _all_equal(gold.parts, answer.parts, asked)
    if {*kinds} <= {"list", "set"} and gold.kind:
        return _equal_collections(gold, answer, asked)
    if kinds == ("group", "group"):
        # A relation carries no brackets of its own, so its name is compared too.
        named = bool(gold.name and answer.name and gold.name != answer.name)
        return gold.text == answer.text and not named and _all_equal(gold.parts, answer.parts, asked)
    if kinds == ("union", "union") and _unordered(gold.parts, answer.parts, asked):
        return True
    if kinds == ("matrix", "matrix"):
        return len(gold.parts) == len(answer.parts) and all(
            _all_equal(g.parts, a.parts, asked) for g, a in zip(gold.parts, answer.parts, strict=True)
        )
    if kinds == ("ratio", "ratio"):
        return len(gold.parts) == len(answer.parts) and all(
            _same_formula(
                rf"\frac{{{g.text}}}{{{gold.parts[0].text}}}", rf"\frac{{{a.text}}}{{{answer.parts[0].text}}}"
            )
            for g, a in zip(gold.parts[1:], answer.parts[1:], strict=True)
        )
    if "ratio" in kinds:
        gold, answer = (_quotient(part) for part in (gold, answer))
        return "ratio" not in (gold.kind, answer.kind) and _equal(gold, answer, asked)
    if kinds == ("relation", "relation"):
        return _equal_relations(gold, answer)
    if {"union", "formula"} & {*kinds} and _is_set(gold) and _is_set(answer):
        return _same_set(_as_text(gold), _as_text(answer))
    if {*kinds} <= {"number", "formula"}:
        return _units_agree(gold, answer) and _same_value(gold, answer, asked)
    return False


def _quotient(part: Part) -> Part:
    """`a:b` as a fraction, where both are plain enough to write one."""
    if part.kind != "ratio" or len(part.parts) != 2:
        return part
    return _single(rf"\frac{{{part.parts[0].text}}}{{{part.parts[1].text}}}")


def _as_text(part: Part) -> str:
    if part.kind == "group":
        return part.text[0] + ",".join(_as_text(p) for p in part.parts) + part.text[1]
    if part.kind == "union":
        return r" \cup ".join(_as_text(p) for p in part.parts)
    return part.text


def _is_set(part: Part) -> bool:
    """Whether this may be a set of numbers: a union, an interval, or what has a set's operator or name."""
    if part.kind == "formula":
        return bool(re.search(r"\\(?:mathbb|setminus|cap|cup)(?![A-Za-z])", part.text))
    return part.kind in ("union", "set") or (part.kind == "group" and len(part.parts) == 2)


def _all_equal(golds: tuple[Part, ...], answers: tuple[Part, ...], asked: Question) -> bool:
    return len(golds) == len(answers) and all(
        _equal(g, a, asked) for g, a in zip(golds, answers, strict=True)
    )


def _unordered(golds: tuple[Part, ...], answers: tuple[Part, ...], asked: Question) -> bool:
    """Whether each gold has an answer of its own; equality is transitive, so the first that fits will do."""
    left = list(answers)
    for gold in golds:
        found = next((i for i, answer in enumerate(left) if _equal(gold, answer, asked)), None)
        if found is None:
            return False
        del left[found]
    return not left


def _equal_collections(gold: Part, answer: Part, asked: Question) -> bool:
    golds, answers = gold.parts, answer.parts
    named = [part.kind == "chain" and part.name for part in golds]
    if all(named) and not any(part.kind == "chain" and part.name for part in answers):
        return _all_equal(golds, answers, asked)
    if gold.kind == answer.kind == "set":
        return all(any(_equal(g, a, asked) for a in answers) for g in golds) and all(
            any(_equal(g, a, asked) for g in golds) for a in answers
        )
    return _unordered(golds, answers, asked)


def _units_agree(gold: Part, answer: Part) -> bool:
    # "units" names none.
    return not ({gold.unit, answer.unit}.isdisjoint({"", "unit"}) and gold.unit != answer.unit)


def _equal_numbers(gold: Part, answer: Part, asked: Question) -> bool:
    if gold.name or answer.name:
        bases_agree = gold.name == answer.name or not answer.name or (asked.base and not gold.name)
        return bases_agree and gold.text.lstrip("0") == answer.text.lstrip("0")
    want, have = gold.value, answer.value
    if want is None or have is None or not _units_agree(gold, answer):
        return False
    if want == have or _rounds_to(answer, want) or _rounds_to(gold, have):
        return True
    if gold.percent != answer.percent and asked.percent:
        return (want * 100 if gold.percent else want) == (have * 100 if answer.percent else have)
    return False


def _same_value(gold: Part, answer: Part, asked: Question) -> bool:
    """Two values of which at least one is a formula."""
    if gold.name or answer.name:
        return False
    for decimal, formula in ((answer, gold), (gold, answer)):
        if decimal.places >= ROUNDED_PLACES and decimal.value is not None:
            exact = _number(_expression(formula.text))
            if exact is not None and _rounds_to(decimal, exact):
                return True
    return _same_formula(_value_text(gold), _value_text(answer), asked.positive)


def _value_text(part: Part) -> str:
    if part.value is None:
        return part.text
    if part.value.denominator == 1:
        return str(part.value.numerator)
    return rf"{'-' if part.value < 0 else ''}\frac{{{abs(part.value.numerator)}}}{{{part.value.denominator}}}"


def _equal_chains(gold: Part, answer: Part, asked: Question) -> bool:
    golds, answers = ((part.parts if part.kind == "chain" else (part,)) for part in (gold, answer))
    if _is_equation(gold):
        return _is_relation(answer) and _equal_equations(gold, answer)
    if gold.name and answer.kind == "chain" and answer.name and gold.name != answer.name:
        return False
    if all(_equal(golds[-1], a, asked) for a in answers):
        return True
    # `y = 2x` may be asked for as `2x - y = 0`, but `x = 3` not as `2x = 6`.
    return (
        gold.kind == "chain"
        and golds[-1].kind == "formula"
        and _is_relation(answer)
        and _equal_equations(gold, answer)
    )


def _is_equation(part: Part) -> bool:
    return part.kind == "chain" and not part.name and len(part.parts) == 2 and "=" in part.text


def _is_relation(part: Part) -> bool:
    return part.kind == "chain" and part.text.count("=") == 1 and "≈" not in part.text


def _equal_equations(gold: Part, answer: Part) -> bool:
    if not _is_relation(gold):
        return False
    return _proportional(*(_difference(part.text.split("=")) for part in (gold, answer))) is not None


def _equal_relations(gold: Part, answer: Part) -> bool:
    factor = _proportional(*(_difference([p.text for p in part.parts]) for part in (gold, answer)))
    if factor is None:
        return False
    return answer.name == (gold.name if factor > 0 else _FLIPPED[gold.name])


# --- formulas ---------------------------------------------------------------------------------------------


def _difference(sides: list[str]) -> Any:
    left, right = (_expression(side.strip()) for side in sides)
    return None if left is None or right is None else left - right


def _proportional(gold: Any, answer: Any) -> Fraction | None:
    """The constant factor, not zero, between two expressions; None where there is none."""
    import sympy

    if gold is None or answer is None:
        return None
    try:
        if not gold.free_symbols or not answer.free_symbols:
            return None
        factor = sympy.simplify(answer / gold)
        return Fraction(float(factor)) or None if factor.is_number and factor.is_real else None
    except Exception:
        return None


def _require_harmless(text: str) -> None:
    if not PLAIN_COMMANDS.issuperset(
        re.findall(r"\\([A-Za-z]+)", re.sub(r"\\begin\{\w*\}|\\end\{\w*\}", "", text))
    ):
        require_fresh_fork()


@lru_cache(maxsize=1)
def _reader() -> Any:
    """latex2sympy's converter, with exact numbers that are made without `parse_expr`."""
    # Imported here since sympy takes a third of a second that only verification workers need to pay.
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, _Latex2Sympy
    from sympy import Rational

    class Reader(_Latex2Sympy):
        def parse_number(self, text: str) -> Rational:
            # The original hands the digits to `sympy.Number`, which evaluates them as Python.
            if re.search(r"[eE][-+]?\d{4}", text):
                raise ValueError(text)
            return Rational(Fraction(text.replace(",", "")))

    return lambda text: Reader(is_real=True, config=ConversionConfig(lowercase_symbols=False)).parse(text)


@lru_cache(maxsize=2048)
def _expression(text: str) -> Any:
    """The formula as a sympy object with exact numbers, or None where it cannot be read."""
    _require_harmless(text)
    from latex2sympy2_extended.math_normalization import NormalizationConfig, normalize_latex
    from sympy import I, Symbol

    text = re.sub(r"(?<=[\d)}])\s*(?=\()", r" \\cdot ", text)
    config = NormalizationConfig(basic_latex=True, malformed_operators=True, nits=True, boxed="none")
    try:
        text = normalize_latex(text, config)
        # Two numbers side by side are no product, and latex2sympy would add them, as in a mixed number.
        if re.search(r"\d\s+\d", text):
            return None
        return _reader()(text).xreplace({Symbol("i", real=True): I})
    except Exception:
        return None


def _number(expression: Any) -> Fraction | None:
    """A real constant's value to 30 digits, or None."""
    from sympy import Rational

    try:
        if expression is None or expression.free_symbols:
            return None
        value = expression.evalf(30)
        return Fraction(str(Rational(str(value)))) if value.is_real and value.is_finite else None
    except Exception:
        return None


def _same_formula(gold: str, answer: str, positive: bool = False) -> bool:
    """Whether two formulas are equal, by Math-Verify, checked by numbers where both are constants."""
    if re.sub(r"\s", "", gold) == re.sub(r"\s", "", answer):
        return True
    want, have = _expression(gold), _expression(answer)
    if want is None or have is None:
        return False
    from sympy import Expr, Symbol

    if not (isinstance(want, Expr) and isinstance(have, Expr)):
        return False
    if positive:
        above = {s: Symbol(s.name, positive=True) for s in want.free_symbols | have.free_symbols}
        want, have = want.xreplace(above), have.xreplace(above)
    if not _verify(want, have):
        return False
    left, right = _number(want), _number(have)
    # Math-Verify rounds to six places; numbers far below one would all be equal.
    return (
        left is None or right is None or abs(left - right) <= Fraction(1, 10**12) * max(abs(left), abs(right))
    )


def _same_set(gold: str, answer: str) -> bool:
    from sympy import Set

    want, have = _expression(gold), _expression(answer)
    return isinstance(want, Set) and isinstance(have, Set) and _verify(want, have)


def _verify(want: Any, have: Any) -> bool:
    from math_verify import verify

    # It warns in each process that no time limit is set, which is what we want: its own uses SIGALRM, which
    # works in a main thread only; the caller has one.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    try:
        return bool(verify(want, have, timeout_seconds=None))
    except Exception:
        return False
