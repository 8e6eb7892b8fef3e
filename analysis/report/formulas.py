"""The formulas in a report's sentences, written there in ASCII, as MathML: a browser typesets it without a script.

A formula is found by a grammar: a relation, a sum, a product, a power, a norm, a call. What is none stays text.
"""

import html
import re
from collections.abc import Callable

from analysis.report.quantities import cut, for_people, in_figures

# Of one formula: characters, and parentheses within parentheses. A foreign sentence is read in bounded time.
MAX_FORMULA, MAX_DEPTH = 240, 6
UNBROKEN = 26  # characters, beyond which a line may break at each relation
GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "eps": "ε", "eta": "η", "kappa": "κ", "rho": "ρ", "sigma": "σ",
}  # fmt: skip
FUNCTIONS = ("atanh", "cos", "eig", "exp", "log", "max", "min", "sin", "sqrt", "step", "tanh")
RELATIONS = {"<=": "≤", ">=": "≥", "<": "&lt;", ">": "&gt;", "=": "=", "!=": "≠"}
SIGNS = {"+": "+", "-": "−", "+-": "±"}
PAIRS = (("||", "||", "‖", "‖"), ("|", "|", "|", "|"), ("(", ")", "(", ")"), ("{", "}", "{", "}"), ("[", "]", "[", "]"))
# What is a formula on its own; any other letter, "a" and "I" above all, is one only beside a sign.
ALONE = frozenset("BFJMQVchz") | set(GREEK.values())

_START = re.compile(r"(?<![\w.:/\\'\"`@#&-])(?=[\w(|{\[-])")
_END = re.compile(r"(?![\w*^_(]|'(?!s\b))")
_TAIL = re.compile(r"[,.;:)\]}'’]+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d{1,4})?(?!\.?\w)")
_NAME = re.compile(rf"(?:{'|'.join((*GREEK, *FUNCTIONS))}|d[hz]|[A-Za-z])(?!\w)(?!-(?!dot\b)\w)")
_RELATION = re.compile(r" ?(<=|>=|!=|<|>|=) ?")
_SIGN = re.compile(r" (\+-|\+|-) ?")
_TIMES = re.compile(r" (·) | ?(/) ?(?=[\w(|])| (x) (?=[\[\d])")
# Factors side by side: no "a", no "I", and no "s", which may be seconds.
_ASIDE = re.compile(r" (?=(?:[B-HJ-Zb-hj-rt-z]|alpha|exp|gamma|grad|kappa)(?!\w)|\|)")
_STAR, _PRIME, _NEXT = re.compile(r"\*(?!\w)"), re.compile(r"'(?!s\b)(?![a-z])"), re.compile(r"\+(?=[\s),.;:]|$)")
_PRIMED = '<mo lspace="0" rspace="0">′</mo>'
_GAP = '<mspace width="0.17em"/>'  # between factors without a sign


def typeset(value: object) -> str:
    """Return a sentence, which may be foreign, as HTML: formulas as MathML, numbers as people write them, all else escaped.

    >>> typeset("V <= 2 & up")
    '<math alttext="V &lt;= 2"><mi>V</mi><mo>≤</mo><mn>2</mn></math> &amp; up'
    >>> typeset("I saw a residual of 9.9e-06 & -3")
    'I saw a residual of 9.9\u2009×\u200910⁻⁶ &amp; −3'
    """
    text = cut(value)
    pieces, done, at = [], 0, 0
    while (found := _START.search(text, at)) is not None:
        start = found.start()
        markup, end = _formula(text, start)
        if markup:
            tail = _TAIL.match(text, end)
            pieces += [html.escape(for_people(text[done:start])), _with_tail(markup, tail[0] if tail else "")]
            done = end = tail.end() if tail else end
        at = max(end, start + 1)
    return "".join([*pieces, html.escape(for_people(text[done:]))])


def _with_tail(markup: str, tail: str) -> str:
    """Return a formula with the comma or parenthesis behind it, which no line break may part from it."""
    if not tail:
        return markup
    head, opening, last = markup.rpartition("<math")
    return f'{head}<span class="whole">{opening}{last}{html.escape(tail)}</span>'


def _formula(text: str, start: int) -> tuple[str, int]:
    """Return the MathML of the formula that ``text`` has at ``start``, and where it ends; "" where there is none."""
    reader = _Reader(text[start : start + MAX_FORMULA])
    sides = reader.chain()
    source = reader.text[: reader.at]
    if not sides:
        return "", start
    if _END.match(text, start + reader.at) is None:  # of the whole text: at MAX_FORMULA a number may be cut in two
        return "", start + reader.at
    if not reader.is_telling and GREEK.get(source, source) not in ALONE:
        return "", start
    if len(source) <= UNBROKEN or len(sides) == 1:
        return f'<math alttext="{html.escape(source)}">{"".join(sides)}</math>', start + reader.at
    # A line may break between elements; at the head of one a relation would be taken for a prefix.
    first, *others = sides
    infix = [other.replace("<mo>", '<mo form="infix">', 1) for other in others]
    return " ".join(f"<math>{side}</math>" for side in (first, *infix)), start + reader.at


class _Reader:
    """Reads one formula from ``text``: each method returns its MathML and moves ``at`` on, or returns "" and leaves it.

    A factor is one element. ``is_telling``: what was read has a sign of mathematics, and is no mere word or number.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.is_telling = False

    def chain(self) -> list[str]:
        """Read sums with relations between them: the first, then each relation with what follows."""
        sides = [self._sum()]
        if not sides[0]:
            return []
        while right := self._after(_RELATION, self._sum, RELATIONS):
            sides.append(right)
        return sides

    def _sum(self) -> str:
        begin = self.at
        sign = '<mo form="prefix">−</mo>' if self._match(re.compile("-")) else ""
        markup = self._product()
        if not markup:
            self.at = begin
            return ""
        while right := self._after(_SIGN, self._product, SIGNS):
            markup += right
        return sign + markup

    def _product(self) -> str:
        markup = self._factor()
        while markup:
            right = self._after(_TIMES, self._factor, {"·": "·", "/": "/", "x": "×"}) or self._beside(markup)
            if not right:
                break
            is_bare = markup == "<mn>1</mn>" and right.startswith(_GAP)  # "1 V" is V
            markup = right.removeprefix(_GAP) if is_bare else markup + right
        return markup

    def _after(self, pattern: re.Pattern[str], read: Callable[[], str], shown: dict[str, str]) -> str:
        """Read an operator and what stands to the right of it."""
        begin = self.at
        operator = self._match(pattern)
        right = read() if operator is not None else ""
        if operator is None or not right:
            self.at = begin
            return ""
        self.is_telling = True
        return f"<mo>{shown[next(filter(None, operator.groups()))]}</mo>{right}"

    def _beside(self, left: str) -> str:
        """Read a factor that stands beside another without a sign: "2 V", or "Q'Q"."""
        begin = self.at
        is_transposed = left.endswith(f"{_PRIMED}</mrow>") and self.text[begin : begin + 1].isupper()
        is_word = left in ("<mi>a</mi>", "<mi>A</mi>", "<mi>I</mi>")
        if not is_transposed and (is_word or self._match(_ASIDE) is None):
            return ""
        right = self._factor()
        if not right:
            self.at = begin
            return ""
        self.is_telling = True
        return right if is_transposed else _GAP + right

    def _factor(self) -> str:
        markup = self._atom()
        while markup and (longer := self._applied(markup)):
            self.is_telling = True
            markup = longer
        return markup

    def _atom(self) -> str:
        if (number := self._match(_NUMBER)) is not None:
            return f"<mn>{in_figures(number[0])}</mn>"
        if self.text.startswith("grad ", self.at):
            return self._gradient()
        for opening, closing, left, right in PAIRS:
            if self.text.startswith(opening, self.at):
                return self._enclosed(opening, closing, left, right)
        return self._name()

    def _gradient(self) -> str:
        begin = self.at
        self.at += len("grad ")
        name = self._name()
        self.at = self.at if name else begin
        self.is_telling = self.is_telling or bool(name)
        return f"<mrow><mo>∇</mo>{name}</mrow>" if name else ""

    def _name(self) -> str:
        begin = self.at
        found = self._match(_NAME)
        if found is None:
            return ""
        name = found[0]
        if name in FUNCTIONS and not self.text.startswith("(", self.at):
            self.at = begin  # a word of the sentence
            return ""
        if name in ("dh", "dz"):
            return f"<mrow><mi>d</mi><mi>{name[1]}</mi></mrow>"
        return f"<mi>{GREEK.get(name, name)}</mi>"

    def _applied(self, base: str) -> str:
        """Read what is put on ``base``: a dot, a hat, a star, a prime, "next", a power, or arguments."""
        if base.startswith("<mi>"):
            for mark, over in ((re.compile("-dot"), "˙"), (re.compile(r"\^(?![\w-])"), "^")):
                if self._match(mark) is not None:
                    return f'<mover accent="true">{base}<mo>{over}</mo></mover>'
            if self._match(_PRIME) is not None:
                return f"<mrow>{base}{_PRIMED}</mrow>"
            if self._match(_NEXT) is not None:
                return f"<msup>{base}<mo>+</mo></msup>"
        if self._match(_STAR) is not None:
            return f"<msup>{base}<mo>∗</mo></msup>"
        if self.text.startswith("^", self.at):
            return self._power(base)
        if self.text.startswith("(", self.at) and base.startswith(
            ("<mi>", "<mover", "<msup><mi>", "<mrow><mo>∇", "<mrow><mi>")
        ):
            arguments = self._enclosed("(", ")", "(", ")")
            return f"<mrow>{base}{arguments}</mrow>" if arguments else ""
        return ""

    def _power(self, base: str) -> str:
        begin = self.at
        self.at += 1
        sign = "<mo>−</mo>" if self._match(re.compile("-")) else ""
        exponent = self._atom()
        if not exponent:
            self.at = begin
            return ""
        return f"<msup>{base}<mrow>{sign}{exponent}</mrow></msup>"

    def _enclosed(self, opening: str, closing: str, left: str, right: str) -> str:
        """Read chains with commas between them, within parentheses or bars."""
        if self.depth == MAX_DEPTH:
            return ""
        begin, was_telling = self.at, self.is_telling
        self.at += len(opening)
        self.depth += 1
        parts = ["".join(self.chain())]
        while parts[-1] and self._match(re.compile(", ?")) is not None:
            parts.append("".join(self.chain()))
        self.depth -= 1
        if not all(parts) or not self.text.startswith(closing, self.at):
            self.at, self.is_telling = begin, was_telling
            return ""
        self.at += len(closing)
        self.is_telling = self.is_telling or opening in ("||", "|", "[")
        # Fences as high as the line: stretched ones would part the lines of a text.
        fences = [
            f'<mo form="{form}" stretchy="false">{fence}</mo>' for form, fence in (("prefix", left), ("postfix", right))
        ]
        return f"<mrow>{'<mo>,</mo>'.join(parts).join(fences)}</mrow>"

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        if found is not None:
            self.at = found.end()
        return found
