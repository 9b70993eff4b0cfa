# ruff: noqa: E501 - a template stays on one line
"""Short stories for children, each with four questions.

A row is one question, and carries the whole story again, as question-answering sets do: every
story stands four times in the text.
"""

import re
from random import Random

from make_bundled.corpora.grammar import Grammar, Rule, lines, shuffled, words
from make_bundled.corpora.words import ENGLISH

RULES: dict[str, Rule] = {
    "mood": words("""
        angry brave calm cold excited glad happy hungry lonely lucky nervous proud sad scared shy silly
        sleepy sorry surprised thirsty tired upset wet worried
    """),
    "spot": lines("""
        the {nature}
        the {quality} {nature}
        the {building}
        the old {building}
        her grandma's garden
        his uncle's farm
    """),
    "treat": ["{food} {dish}", "{staple} sandwich", "{food} cake", "slice of {food} pie"],
    "kin": words("mother father sister brother aunt uncle grandma grandpa cousin teacher neighbor"),
    "opening": lines("""
        One {weekday} morning, {hero} the {animal1} woke up [early|late] and felt {mood}. It was {hero}'s birthday, and {friend} had promised to bring {thing1:a}.
        Once there was {quality:a} [little|young|old] {animal1} named {hero}, who lived [near|beside|behind] {spot}. {hero} had a friend called {friend}, and every {weekday} they played with {thing1:a}.
        {hero} was a [girl|boy|child] who loved {animal:pl}. For a birthday present, {hero}'s {kin} gave {hero} {colour1:a} {thing1}. {friend} wanted to see it right away.
        It was {quality:a} [spring|summer|autumn|winter] day in {place}. {hero} and {friend} had nothing to do, so they took {thing1:a} and walked to {spot}.
        {hero}'s {kin} worked as {job:a} in {place}. On {weekday}, {hero} and {friend} were allowed to come along and carry the {colour1} {thing1}.
        The {mood} {animal1} {hero} could not sleep. Someone had taken the {colour1} {thing1}, and {hero} wanted to find it before {friend} came over.
    """),
    "middle": lines("""
        On the way they met {quality:a} {animal2} who was [looking for|crying about|selling] {thing2:a}. "[Can|Will] you help me?" asked the {animal2}. {friend} said yes, but {hero} felt {mood}.
        First they went to {spot} and found {thing2:a} under {plant:a} bush. {hero} put it in {material:a} {thing}, and {friend} [laughed|clapped|sang] {adverb}.
        {friend} was {mood}, so they stopped and ate {treat:a} and {count} {food:pl}. The {animal2} ate the most and then fell asleep on {thing2:a}.
        Then it began to [rain|snow|get dark]. They hid in {building:a} with {quality:a} {animal2}, who told them a story about {thing2:a} and {quality:a} {job}.
        {hero} tried to {deed} the {thing1}, but it was too {quality}. {friend} asked {job:a} for help, and the {job} gave them {thing2:a} made of {material}.
        Suddenly they heard {quality:a} noise. It was {animal2:a} with {colour2:a} {thing2} on its head! {hero} ran {adverb}, but {friend} only laughed.
        {hero} wanted to buy {thing2:a}, but it cost {count} [coins|dollars]. {friend} sold {food:pl} to {animal2:a} until they had enough money.
        They climbed {nature:a} and looked down at {place}. {friend} dropped the {thing2}, and {quality:a} {animal2} carried it away.
    """),
    "ending": lines("""
        At last they came home. {hero}'s {kin} made {treat1:a} for everyone, and {hero} felt {mood1}.
        When the sun went down, {hero} gave {friend} the {thing1} to keep. "You are my best friend," said {friend}. They shared {treat1:a}, and both were {mood1}.
        In the end the {thing1} was safe in the {building1}. {hero} was {mood1} and ate {treat1:a} before bed.
        That night {hero} dreamed about the {building1} and woke up {mood1}. The next day there was {treat1:a} for breakfast.
        {friend} said sorry, and {hero} was {mood1} again. They put the {thing1} in the {building1} and never lost it again.
    """),
}  # fmt: skip

GRAMMAR = Grammar(ENGLISH, RULES)

# question, slot that holds the answer, rule that the wrong answers are drawn from
QUESTIONS = [
    ("What was the name of {hero}'s friend?", "friend", "first"),
    ("What did {hero} and {friend} have at the beginning?", "thing1", "thing"),
    ("Which animal did they meet?", "animal2", "animal"),
    ("How did {hero} feel at the end?", "mood1", "mood"),
    ("Which other thing is in the story?", "thing2", "thing"),
    ("What was there to eat at the end?", "treat1", "treat"),
    ("Who is the story about?", "hero", "first"),
]


def document(rng: Random) -> list[str]:
    """Four rows: the story with each of its four questions."""
    bound = GRAMMAR.bind(
        rng, hero="first", friend="first", animal1="animal", animal2="animal", thing1="thing",
        thing2="thing", colour1="colour", colour2="colour", treat1="treat", mood1="mood",
        building1="building",
    )  # fmt: skip
    opening = GRAMMAR.draw("opening", rng, bound)
    middle = GRAMMAR.draw("middle", rng, bound)
    story = " ".join([opening, middle, GRAMMAR.draw("ending", rng, bound)])
    candidates = [q for q in QUESTIONS if _mentions(story, bound[q[1]])]
    asked = shuffled(rng, candidates)[:4]
    return [f"{story}\n{_question(rng, story, bound, *q)}" for q in asked]


def _mentions(story: str, text: str) -> bool:
    """Whether the words of `text` stand in the story."""
    return re.search(rf"\b{text}\b", story) is not None


def _question(
    rng: Random, story: str, bound: dict[str, str], question: str, slot: str, rule: str
) -> str:
    """The question, its four options and the letter of the right one."""
    options = [bound[slot]]
    while len(options) < 4:
        wrong = GRAMMAR.draw(rule, rng)
        if wrong not in options and not _mentions(story, wrong):
            options.append(wrong)
    mixed = shuffled(rng, options)
    listed = "\n".join(f"{letter}) {text}" for letter, text in zip("ABCD", mixed, strict=True))
    answer = "ABCD"[mixed.index(bound[slot])]
    return f"{GRAMMAR.expand(question, rng, bound)}\n{listed}\nAnswer: {answer}"
