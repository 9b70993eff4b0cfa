"""A small random grammar: templates with slots and alternatives, expanded by a seeded generator.

Only `random.Random.random` is ever drawn from, whose sequence Python promises to keep for a
seed, so a text is the same on every machine and under every version.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TypeVar

from make_bundled.corpora import morphology

T = TypeVar("T")
Rule = Sequence[str] | Callable[[Random], str]

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(?:(\w+)=)?(\w+)((?::\w+)*)\}")

MODIFIERS: dict[str, Callable[[str], str]] = {
    "a": morphology.with_article,
    "pl": morphology.plural,
    "s": morphology.third_person,
    "ed": morphology.past,
    "ing": morphology.gerund,
    "cap": lambda text: text[:1].upper() + text[1:],
    "title": morphology.title_case,
    "low": str.lower,
}


def pick(rng: Random, items: Sequence[T]) -> T:
    """One item, each equally likely."""
    return items[int(rng.random() * len(items))]


def between(rng: Random, low: int, high: int) -> int:
    """A whole number from `low` to `high`, both included."""
    return low + int(rng.random() * (high - low + 1))


def shuffled(rng: Random, items: Sequence[T]) -> list[T]:
    """The items in random order."""
    return [items[i] for _, i in sorted((rng.random(), i) for i in range(len(items)))]


def words(text: str) -> list[str]:
    """The words of a block of text; `_` stands for a space inside one entry."""
    return [word.replace("_", " ") for word in text.split()]


def lines(text: str) -> list[str]:
    """The non-empty lines of a block of text."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def number(low: int, high: int, step: int = 1) -> Callable[[Random], str]:
    """A rule that writes a number from `low` to `high` in steps of `step`."""
    return lambda rng: str(low + step * int(rng.random() * ((high - low) // step + 1)))


class Grammar:
    """Named rules, each a list of templates or a function of the random generator.

    A template holds `[one|another|]` (a choice, which may nest) and `{slot}`: the value
    bound to that name, or else an expansion of the rule of that name. `{slot:pl:cap}` applies
    modifiers from left to right; `{x=rule:a}` also binds what it wrote to `x`.
    """

    def __init__(self, *tables: Mapping[str, Rule]) -> None:
        self.rules: dict[str, Rule] = {}
        for table in tables:
            self.rules.update(table)

    def expand(self, template: str, rng: Random, bound: dict[str, str] | None = None) -> str:
        """The text of `template`; new bindings are written into `bound`."""
        names = {} if bound is None else bound
        while _CHOICE.search(template):
            template = _CHOICE.sub(lambda m: pick(rng, m.group(1).split("|")), template)

        def fill(match: re.Match[str]) -> str:
            target, slot, modifiers = match.groups()
            text = names[slot] if slot in names and not target else self.draw(slot, rng, names)
            for modifier in modifiers.split(":")[1:]:
                text = MODIFIERS[modifier](text)
            if target:
                names[target] = text
            return text

        return _SLOT.sub(fill, template)

    def draw(self, rule: str, rng: Random, bound: dict[str, str] | None = None) -> str:
        """One expansion of the rule called `rule`."""
        if rule not in self.rules:
            raise KeyError(f"the grammar has no rule {rule!r}")
        body = self.rules[rule]
        return body(rng) if callable(body) else self.expand(pick(rng, body), rng, bound)

    def bind(self, rng: Random, **slots: str) -> dict[str, str]:
        """Values for the named slots, no two of them alike."""
        bound: dict[str, str] = {}
        for name, rule in slots.items():
            for _ in range(100):
                value = self.draw(rule, rng, bound)
                if value not in bound.values():
                    break
            bound[name] = value
        return bound

    def templates(self, rule: str) -> Sequence[str]:
        """The templates of a rule, for a caller that wants several different ones."""
        body = self.rules[rule]
        if callable(body):
            raise TypeError(f"rule {rule!r} is a function and has no templates to choose from")
        return body
