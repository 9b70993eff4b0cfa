"""English inflection, as far as the word lists need it."""

VOWELS = "aeiou"
SMALL_WORDS = {"a", "an", "the", "of", "in", "on", "and", "to", "for", "at", "by", "with"}
AN_WORDS = ("hour", "honest", "heir")
A_WORDS = ("uni", "use", "euro", "one ", "once", "ukulele", "utensil")

PLURALS = {
    "man": "men", "woman": "women", "child": "children", "person": "people", "mouse": "mice",
    "goose": "geese", "foot": "feet", "tooth": "teeth", "sheep": "sheep", "deer": "deer",
    "fish": "fish", "leaf": "leaves", "loaf": "loaves", "knife": "knives", "wolf": "wolves",
    "shelf": "shelves", "calf": "calves", "half": "halves", "thief": "thieves", "wife": "wives",
    "life": "lives", "potato": "potatoes", "tomato": "tomatoes", "hero": "heroes", "ox": "oxen",
    "scarf": "scarves", "hoof": "hooves", "salmon": "salmon", "trout": "trout", "moose": "moose",
    "series": "series", "species": "species", "aircraft": "aircraft", "mango": "mangoes",
    "volcano": "volcanoes", "echo": "echoes", "analysis": "analyses", "thesis": "theses",
    "crisis": "crises", "spacecraft": "spacecraft", "elf": "elves", "bison": "bison",
}  # fmt: skip

PASTS = {
    "bring": "brought", "build": "built", "buy": "bought", "catch": "caught", "choose": "chose",
    "come": "came", "cut": "cut", "draw": "drew", "drink": "drank", "drive": "drove",
    "eat": "ate", "fall": "fell", "feed": "fed", "feel": "felt", "find": "found", "fly": "flew",
    "forget": "forgot", "get": "got", "give": "gave", "go": "went", "grow": "grew",
    "hear": "heard", "hide": "hid", "hold": "held", "keep": "kept", "know": "knew",
    "lead": "led", "leave": "left", "lend": "lent", "light": "lit", "lose": "lost",
    "make": "made", "meet": "met", "pay": "paid", "put": "put", "read": "read", "ride": "rode",
    "run": "ran", "say": "said", "see": "saw", "sell": "sold", "send": "sent", "set": "set",
    "sing": "sang", "sit": "sat", "sleep": "slept", "speak": "spoke", "spend": "spent",
    "stand": "stood", "steal": "stole", "sweep": "swept", "swim": "swam", "take": "took",
    "teach": "taught", "tell": "told", "think": "thought", "throw": "threw", "wear": "wore",
    "win": "won", "write": "wrote", "spread": "spread", "bend": "bent", "dig": "dug",
    "shake": "shook", "split": "split", "weave": "wove", "creep": "crept", "climb": "climbed",
    "rise": "rose", "swing": "swung", "spin": "spun", "wind": "wound", "begin": "began",
}  # fmt: skip

DOUBLING = {
    "stop", "plan", "drop", "trim", "wrap", "grab", "chop", "stir", "hop", "skip", "step", "clap",
    "drag", "dip", "pin", "pat", "shop", "nod", "scrub", "slip", "snap", "spot", "tap", "tip",
    "trot", "zip", "hum", "jog", "wag", "knit", "fit", "rub", "beg", "ship", "strip", "swap",
    "mop", "prefer", "refer", "admit", "permit", "regret", "transfer", "cut", "dig", "get", "hit",
    "let", "put", "run", "set", "sit", "swim", "win", "begin", "forget", "split", "spin", "plug",
    "scan", "sip", "tug",
}  # fmt: skip


def with_article(noun: str) -> str:
    """The noun behind its indefinite article."""
    low = noun.lower()
    vowel = low[:1] in VOWELS or low.startswith(AN_WORDS)
    return f"{'an' if vowel and not low.startswith(A_WORDS) else 'a'} {noun}"


def plural(noun: str) -> str:
    """The plural of a noun; of a phrase, that of its last word."""
    head, _, last = noun.rpartition(" ")
    if last.endswith("man") and last not in ("man", "woman", "human", "german", "caiman"):
        last = last[:-3] + "men"
    elif last in PLURALS:
        last = PLURALS[last]
    else:
        last = _add_s(last)
    return f"{head} {last}" if head else last


def _add_s(word: str) -> str:
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in VOWELS:
        return word[:-1] + "ies"
    return word + "s"


def third_person(verb: str) -> str:
    """`carry` to `carries`; a phrase changes its first word."""
    first, _, rest = verb.partition(" ")
    form = {"go": "goes", "do": "does", "have": "has"}.get(first) or _add_s(first)
    return f"{form} {rest}" if rest else form


def past(verb: str) -> str:
    """`carry` to `carried`; a phrase changes its first word."""
    first, _, rest = verb.partition(" ")
    if first in PASTS:
        form = PASTS[first]
    elif first in DOUBLING:
        form = first + first[-1] + "ed"
    elif first.endswith("e"):
        form = first + "d"
    elif first.endswith("y") and first[-2:-1] not in VOWELS:
        form = first[:-1] + "ied"
    else:
        form = first + "ed"
    return f"{form} {rest}" if rest else form


def gerund(verb: str) -> str:
    """`carry` to `carrying`; a phrase changes its first word."""
    first, _, rest = verb.partition(" ")
    if first in DOUBLING:
        form = first + first[-1] + "ing"
    elif first.endswith("e") and not first.endswith(("ee", "ye", "oe")):
        form = first[:-1] + "ing"
    else:
        form = first + "ing"
    return f"{form} {rest}" if rest else form


def title_case(text: str) -> str:
    """Capitals on all but the small words; the first word always gets one."""
    parts = text.split(" ")
    return " ".join(
        part if index and part in SMALL_WORDS else part[:1].upper() + part[1:]
        for index, part in enumerate(parts)
    )
