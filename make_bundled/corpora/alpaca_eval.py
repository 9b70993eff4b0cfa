# ruff: noqa: E501 - a template stays on one line
"""Instructions to an assistant, each with its answer."""

from random import Random

from make_bundled.corpora.grammar import Grammar, Rule, lines, number, pick
from make_bundled.corpora.words import ENGLISH

RULES: dict[str, Rule] = {
    "small": number(2, 12),
    "opener": ["Sure! ", "Of course. ", "Certainly! ", "Here you go. ", "Good question. ", "", "", ""],
    "closer": ["Let me know if you need [more|anything else]!", "I hope this helps!", "Good luck with the {thing}!",
               "Enjoy your {dish}!", "Would you like [another example|more detail]?", "", "", ""],
    "kin": ["mother", "father", "sister", "brother", "friend", "boss", "neighbor", "teacher", "grandmother"],
    "item": lines("""
        {quality:cap} {thing:pl}: useful when you want to {deed} {material} or {material}.
        {idea:cap}: without it, {topic} becomes {quality} and {quality}.
        Visit the {building}, which is known for its {quality} {thing:pl}.
        {deed:cap} the {thing} {adverb}, and then {deed} it again.
        Ask {job:a} for advice about {topic}.
        Try {food} {dish} with {staple} and {food:pl}.
        Practise {topic} for {small} minutes every {weekday}.
        Learn the basics of {science} from {quality:a} book.
        Keep {quality:a} diary of your {idea} and {idea}.
        {animal:pl:cap} are {quality} and need {food:pl} and {staple}.
        Set {quality:a} goal and reward yourself with {food} {dish}.
        Take a walk through the {nature} or along the {nature}.
    """),
    "fact": lines("""
        It is [often|usually|sometimes] made of {material} and used by {job:pl}.
        It can be found in {nature:pl} and {nature:pl} in {country} and {country}.
        It was [first|widely] used in {country} around {oldyear}.
        It helps people to {deed} {thing:pl} more {adverb}.
        [Many|Most|Some] people think of it as {quality} and {quality}.
        It depends on {idea}, {idea} and a little {idea}.
        The {quality} kind is more [common|expensive|popular] than the {quality} kind.
        In {national} culture it is a sign of {idea}.
    """),
}  # fmt: skip

# instruction, answer; the answer may use every name that the instruction bound
TASKS: list[tuple[str, str]] = [
    ("[What is {x=idea}?|Explain {x=idea} in simple words.|Describe {x=idea} to a child.|Define {x=idea}.]",
     "{x:cap} is the [state|feeling|quality] of being {quality} when you {deed} {thing:a} or meet {job:a}. For example, {quality:a} {job} shows {x} when the {thing} is {quality}. It is [related to|the opposite of] {idea}. {fact}"),
    ("[What is {x=thing:a}?|Can you explain what {x=thing:a} is?|What is {x=thing:a} used for?]",
     "{x:cap} is {quality:a} object that people use to {deed} or {deed} things. {fact} {fact}"),
    ("[Give me|List|Suggest|Name] {n=count} [tips|ideas|ways] for {x=topic}.",
     "{opener}Here are some [tips|ideas] for {x}:\n1. {item}\n2. {item}\n3. {item}\n{closer}"),
    ("[Write|Compose] a [short|] poem about {x=quality:a} {y=animal}.",
     "[O {y}|Dear {y}|The {y}], so {quality} and so {quality},\nYou {deed} the {nature} by day and night.\nThe {plant} is {colour}, the {nature} is {colour},\nAnd {adverb} the {animal} dreams of you.\nNo {job}, no {job}, no {thing} of {material},\nCan tell me what the {plant:pl} may feel."),
    ("[How do I|How can I|What is the best way to] {x=deed} {y=thing:a}?",
     "{opener}To {x} {y}, follow these steps:\n1. {deed:cap} it {adverb} with {quality:a} cloth.\n2. {deed:cap} the {material} parts and wait {small} minutes.\n3. {x:cap} it {adverb}, and do not {deed} it.\n{closer}"),
    ("[Give me|Write|I need] a recipe for {x=food} {y=dish}.",
     "{opener}For {x} {y} you need {small} {x:pl}, {tens} g of {staple}, {small} spoons of {staple} and {food:a}.\nFirst, chop the {x:pl} and mix them with the {staple}. Then [bake|cook|fry] everything for {tens} minutes until it is {colour} and {quality}. Serve the {y} with {food:pl}. {closer}"),
    ("[What is the difference between {x=thing:a} and {y=thing:a}?|Compare {x=thing:a} and {y=thing:a}.]",
     "{x:cap} is [usually|often] {quality} and made of {material}, while {y} is {quality} and {quality}. You would use {x} to {deed} something, but {y} to {deed} it. {fact}"),
    ("[What is the difference between {x=animal:a} and {y=animal:a}?|Which is better, {x=animal:a} or {y=animal:a}?]",
     "{x:cap} lives in the {nature} and eats {food:pl}, while {y} prefers the {nature} and eats {plant:pl}. {x:cap} is more {quality}, but {y} is {adverb} {quality}. Both are loved by {job:pl} in {country}."),
    ("Write [an email|a letter|a message] to my {x=kin} [about|asking about] the {y=thing}.",
     "Dear {first},\n[I hope you are well.|How are you?] I am writing about the {colour} {y} that you [lent|sent|promised] me in {month}. It is {quality}, but I [cannot|would like to] {deed} it. Could you [call|visit] me on {weekday}?\n[Best wishes|Kind regards|Yours sincerely],\n{first}"),
    ("[Tell|Write] me a [short|very short] story about {x=job:a} and {y=animal:a}.",
     "Once, {x} in {place} found {y} in the {building}. It was {quality} and {quality}, so {first} gave it {food:pl} and {staple}. From that day on, they would {deed} the {thing:pl} together, and people came from {country} to see them."),
    ("[Plan|Suggest] a trip to {x=country} for {y=count} days.",
     "{opener}Start in {place}, where you can see the {building} and eat {food} {dish}. Then take {vehicle:a} to the {nature} near {place} and stay in {quality:a} {building}. On the last day, buy {material} {thing:pl} as gifts. The best time to visit {x} is {month}. {closer}"),
    ("[Who was {x=first} {y=surname}?|Tell me about {x=first} {y=surname}.]",
     "{x} {y} was {national:a} {job} born in {place} in {year}. {y} is known for the {matter:pl} of {science} and for the book \"The {quality:cap} {thing:cap}\". Later in life, {y} moved to {country} and worked as {job:a}."),
    ("[Is {x=topic}|Do you think {x=topic} is] [important|useful|worth it] for {y=job:a}?",
     "[Yes|In most cases, yes|That depends]. For {y}, {x} can bring {idea} and {idea}. On the other hand, it may cost {idea} and time. I would [advise|suggest] that you start {adverb} and ask {job:a} first. {closer}"),
    ("[Rewrite this sentence to be more polite|Make this sentence sound formal]: I want to {x=deed} the {y=thing}.",
     "[I would be {adverb} grateful if I could {x} the {y}.|If it is not too much trouble, I would like to {x} the {y}.|Might I be permitted to {x} the {y} on {weekday}?]"),
    ("[Put|Rewrite] this sentence in the past tense: The {z=job} will {x=deed} the {y=thing}.",
     "The {z} {x:ed} the {y}."),
    ("[Sort|Put] these words in alphabetical order: {a=food}, {b=animal}, {c=thing}.", "SORTED"),
    ("[What is {x=tens} plus {y=tens}?|Calculate {x=tens} plus {y=tens}.]", "SUM"),
    ("Use the word \"{x=thing}\" in [a sentence|two sentences] about {y=job:a}.",
     "{y:cap} put the {x} on the {material} {thing}. Another example is: \"{first} bought {x:a} in {place} for {small} dollars.\""),
    ("[Classify|Sort] these things as animals or food: {a=animal}, {b=food}, {c=animal}, {d=food}.",
     "Animals: {a}, {c}.\nFood: {b}, {d}."),
    ("I feel {x=quality} [today|because of {y=idea}|at work]. What should I do?",
     "I am sorry that you feel {x}. [Try|You could try] {topic} or a walk in the {nature}. Talking to {quality:a} friend or {job:a} also helps. {item} {closer}"),
    ("[Write|Create] [a slogan|an advert] for {x=quality:a} {y=thing}.",
     "\"The {y} that makes your {matter:pl} {quality}!\" [Buy|Try] our {quality} {material} {y} today, for only {tens} dollars. {job:pl:cap} in {country} love it!"),
    ("[Which|What] {x=instrument} should I buy for my {y=kin}?",
     "For a beginner, {quality:a} {x} of {material} costs about {hundreds} dollars. Ask {job:a} in {place} to {deed} it first. Your {y} should practise {small} minutes a day. {closer}"),
    ("[How does {x=building:a} work?|Explain how {x=building:a} works.]",
     "In {x}, {job:pl} and {job:pl} work together. In the morning they {deed} the {thing:pl}, and in the evening they {deed} the {material} {thing:pl}. {fact} {fact}"),
]  # fmt: skip

GRAMMAR = Grammar(ENGLISH, RULES)


def document(rng: Random) -> list[str]:
    """An instruction and, on the next line, its answer, in one row."""
    instruction, answer = pick(rng, TASKS)
    bound: dict[str, str] = {}
    asked = " ".join(GRAMMAR.expand(instruction, rng, bound).split())
    if rng.random() < 0.1:
        asked = f"{pick(rng, ['Please help me.', 'Hi!', 'Hello,', 'I have a question.'])} {asked}"
    if answer == "SUM":
        total = int(bound["x"]) + int(bound["y"])
        reply = f"{bound['x']} + {bound['y']} = {total}"
    elif answer == "SORTED":
        reply = ", ".join(sorted(bound[name] for name in "abc"))
    else:
        reply = GRAMMAR.expand(answer, rng, bound)
    return [f"{asked}\n{reply.strip()}"]
