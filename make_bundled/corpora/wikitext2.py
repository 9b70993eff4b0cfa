# ruff: noqa: E501 - a template stays on one line
"""Encyclopaedic articles under `= Title =` headings; a row is a heading or a paragraph."""

import re
from random import Random

from make_bundled.corpora.grammar import (
    Grammar,
    Rule,
    between,
    lines,
    number,
    pick,
    shuffled,
    words,
)
from make_bundled.corpora.words import ENGLISH

RULES: dict[str, Rule] = {
    "river": words("Arle Brent Calder Derry Eske Fallow Garn Isen Keld Lorne Maddle Nenn Orrin"),
    "adjective": lines("""
        {colour}-backed
        {colour}-tailed
        {quality}
        {national}
        lesser {colour}
        greater {nature}
        {nature}
    """),
    "genre": ["folk", "jazz", "rock", "choral", "orchestral", "electronic", "chamber"],
    "event": lines("""
        the {quality} flood of {year}
        the fire of {oldyear}
        the war of {oldyear}
        the election of {year}
        the strike of {year}
        the opening of the railway
        the closure of the {building}
        the harvest of {year}
        the {quality} winter of {year}
    """),
    "lifeyear": number(1896, 1945), "lateyear": number(1976, 2012), "birthyear": number(1862, 1878),
    "lifeevent": lines("""
        the {quality} flood of {lifeyear}
        the strike of {lifeyear}
        the opening of the railway
        the closure of the {building}
        the {quality} winter of {lifeyear}
        the election of {lifeyear}
    """),
    "source": lines("""
        the historian {name}
        the critic {name}
        {name} of the {place} {paper}
        the {national} {job} {name}
        a survey of {year}
        a report to the ministry of {ministry}
        the {place} {paper}
    """),
    "paper": ["Gazette", "Herald", "Chronicle", "Mercury", "Observer", "Post", "Courier", "Record"],
    "praise": lines("""
        {quality} and {quality}
        one of the most {quality} of its time
        {quality:a} example of {national} taste
        less {quality} than was usual
        too {quality} for the public
        {quality} , if {adverb} {quality}
    """),
    "aside": lines("""
        [According to|In the words of] {source} , the result was {praise} .
        {source:cap} [called|described|praised|remembered] it as {praise} .
        [Little|Not much|Almost nothing] is known about {event} , which {source} [mentions|describes|disputes] .
        It [is|was] often [compared with|mistaken for|linked to] the {building} of {place} in {country} .
        The {matter} of the {matter} [became|remained] a [subject|question] of {idea} for {count} years .
        {name} , {job:a} from {place} , [wrote|published] {quality:a} account of it in {year} .
        In later years the {job:pl} of {place} [claimed|denied|believed] that {event} had been the [cause|reason|beginning] of its [decline|success|growth|fame] .
        [A|Another] {material} {thing} from {oldyear} , now in the {building} at {place} , [shows|records|recalls] the same {matter} .
        [Some|Several|Many] {national} {job:pl} [doubted|accepted|admired] the {idea} of this {matter} , [while|although|because] others {adverb} [rejected|ignored|defended] it .
    """),
    # --- people
    "person_open": lines("""
        {full} ( born {date} {y0} ) was {nat:a} {job1} and {job2} from {town} in {land} . He is best known for his [work|writing|research] on the {matter:pl} of {science} and for {thing:a} collection that fills the {building} of {town2} .
        {full} ( {date} {y0} – {date} {y1} ) was {nat:a} {job1} who worked in {land} . The son of {job:a} , he [grew up|was raised|spent his childhood] in {town} , where his family kept a small {building} near the {nature} .
        {full} was {nat:a} {job1} , {job2} and collector of {thing:pl} , born in {town} in {y0} . [His|His early] career was [marked|shaped|interrupted] by {lifeevent} , and he [turned|came] to {science} [only|rather] late .
    """),
    "person_life": lines("""
        {last} [studied|read] {science} at the [university|college|academy] of {town2} , and [left|graduated] in {lifeyear} with {quality:a} thesis on {material} and {plant:pl} . He then [worked|served] for {count} years as {job:a} , [first|mainly] in {town} and [later|then] in {place} .
        In {lifeyear} he married {girl} {surname} , the daughter of {job:a} ; the couple had {count} children . The family [moved|returned] to {town2} after {lifeevent} , and [lived|stayed] there until {lifeyear} .
        During {lifeevent} {last} was [sent|called] to {country} , where he [met|assisted|quarrelled with] {name} . The two men [exchanged|wrote] more than {tens} letters , which [survive|are kept] in the {building} of {place} .
        His first [book|study|exhibition] , " The {quality:cap} {thing:cap} " , appeared in {lifeyear} . {source:cap} [found|thought|called] it {praise} , [but|and] it [sold|was printed in] only {hundreds} copies .
        {last} [spent|passed] the [winters|summers] of these years in {country} , [drawing|collecting|describing] the {plant:pl} and {animal:pl} of the {nature} . [Most|Many|Few] of his notes were lost in {lifeevent} .
        He was [elected|appointed|chosen] president of the {national} society of {science} in {lifeyear} , [succeeding|following|replacing] {name} . He [held|kept] the office for {small} years , [despite|because of] his {quality} {idea} .
        In the {quality} [spring|summer|autumn|winter] of {lifeyear} , {last} [suffered|recovered from] an illness which [left him|made him] {adverb} {quality} . He [died|retired] at {town2} [at the age of|aged] {tens} .
        Among his [pupils|friends|students] were the {job} {name} , the {job} {name} and , for a short time , the {national} {job} {name} .
    """),
    "person_legacy": lines("""
        {material:a:cap} statue of {last} was [placed|unveiled] in front of the {building} of {town} in {lateyear} . [It|The work] is by {name} and shows him with {thing:a} and {animal:a} .
        The {last} Prize , [given|awarded] [each|every] year for [work|research] in {science} , was founded by his pupils in {lateyear} . The first winner was the {job} {name} of {place} .
        A street , {building:a} and {quality:a} [kind|variety] of {plant} are named after {last} . His house in {town2} is now [used as|home to] {building:a} .
        Interest in {last} [grew|returned|declined] after {lateyear} , when {name} [found|discovered|edited] his {quality} diaries . They [show|reveal|suggest] that his {idea} was {praise} .
    """),
    # --- towns
    "town_open": lines("""
        {town} is a [small|market|harbour|mining|former|quiet] town in the {dir} of {land} , on the [left|right|northern|southern] bank of the River {river} . In {year} it had {thousands} inhabitants , [most|many] of whom worked in {trade} .
        {town} is a village and parish {small} kilometres {dir} of {town2} , in {land} . It lies [between|beside|above] {nature:a} and {nature:a} , at a height of {hundreds} metres , and is known for its {plant} [trees|gardens|meadows] and {trade} .
        {town} is a port on the {dir} coast of {land} . It has about {tens} @,@ 000 inhabitants , {quality:a} harbour , and the [largest|oldest|smallest] {building} in the [region|county|province] .
    """),
    "trade": lines("""
        {trade2} and {trade2}
        the {material} mines
        the making of {thing:pl}
        the growing of {food:pl}
    """),
    "trade2": ["fishing", "weaving", "brewing", "farming", "tourism", "shipbuilding", "printing",
               "forestry", "quarrying", "glassmaking", "pottery", "tanning", "transport", "milling"],
    "town_body": lines("""
        The name is [first|earliest] recorded in {oldyear} as " {place} " . {source:cap} [derives|explains] it from an old word for {nature:a} or for the {animal} .
        {building:a:cap} stood here by {oldyear} , and the right to hold a market [every|each] {weekday} was granted [soon|{small} years] afterwards . The market [dealt|traded] [mainly|largely] in {food:pl} , {material} and {animal:pl} .
        The railway from {town2} [reached|came to] {town} in {year} , and the population [doubled|rose from {hundreds} to {thousands}] within {count} years . New streets were [built|laid out] on the {dir} side of the {river} .
        During {event} the town was [occupied|damaged|besieged|spared] , and [part|much|most] of the {building} was [burnt|lost|rebuilt] . The {job} {name} [led|organised|described] the defence .
        The {quality} church , dedicated in {oldyear} , has {material:a} tower and a nave of {count} bays . Its {thing:pl} , the work of {name} , are [among|considered] the most {quality} in {land} .
        The {building} on the {nature} was [designed|built|enlarged] by {name} between {year} and {year} at a cost of {thousands} pounds . It [houses|contains] a collection of {national} {thing:pl} and a {science} library .
        The local {building} [employs|employed] some {hundreds} people and [makes|made] {thing:pl} of {material} . It was [closed|sold|rebuilt] after {event} .
        The climate is {quality} , with {quality} winters and {quality} summers . The warmest month is {month} , and [about|nearly|almost] {hundreds} millimetres of rain fall in a year .
        [The|A] football club , {town} [United|Rovers|Town|Athletic] , was founded by {job:pl} in {year} and [plays|has played] in {colour} and {colour} . It [won|lost] the cup of {land} in {year} against {place} .
        Each {month} the [people|inhabitants] of {town} [celebrate|hold] the {food} fair , at which {animal:pl} are [raced|shown|sold] and {quality:a} {thing} is carried [through|around] the streets .
    """),
    # --- animals and plants
    "species_open": lines("""
        The {adj} {animal1} is a [species|kind] of {quality} {animal1} found in the {nature:pl} of {land} and , more rarely , [in its towns|on its coasts|in neighbouring countries|in {nature:pl}] . It was [described|named] by {name} in {oldyear} from a single specimen [taken|caught|collected] near {town} .
        The {adj} {animal1} ( also [called|known as] the {national} {animal1} ) is {animal1:a} of the {quality} {nature:pl} of {land} . Adults [reach|measure] {small} to {tens} centimetres and weigh up to {hundreds} grams .
    """),
    "species_body": lines("""
        The [back|head|upper side] is {colour} , the [belly|throat|under side] {colour} with {colour} spots . [Males are larger than females|Females are larger than males|Males are darker than females|Both sexes look alike|Females are slightly paler] , and the young are [almost|entirely|mostly] {colour} until their [first|second|third] winter .
        It [feeds|lives] on {food:pl} , {plant} seeds and small {animal:pl} , which it [hunts|takes|catches] [at night|at dusk|before dawn] . In {month} it will also eat the leaves of {plant:pl} and {plant:pl} .
        The nest is built of {plant} and {material} in {nature:a} or an empty {building} . The female [lays|produces] {count} {colour} eggs in {month} , and both parents [feed|guard] the young for {count} weeks .
        The call is {quality:a} , {quality} note , [repeated|given] {count} times . {source:cap} [compared|likened] it to the sound of {instrument:a} heard across {nature:a} .
        Its numbers [fell|rose] {adverb} after {year} , when [much|most] of the {nature} around {town} was [drained|planted with {plant:pl}|turned into farmland] . [About|Some|Fewer than] {thousands} pairs [remain|were counted] in {land} .
        Since {year} the {adj} {animal1} has been [protected|bred] at {town2} by a [group|society] of {job:pl} [led|founded] by {name} . [Hunting|Trade] is [forbidden|limited] between {month} and {month} .
        Its [chief|main|natural] enemies are the {animal} and the {animal} . When [alarmed|disturbed|threatened] , it [hides|runs|remains still] among {plant:pl} and [raises|lowers|spreads] its {quality} tail .
        In the folk tales of {land} , the {animal1} is {quality:a} [messenger|thief|judge] who [brings|steals|guards] {thing:a} of {material} . It [appears|stands] on the arms of {town} and on a stamp of {year} .
    """),
    # --- works
    "work_open": lines("""
        {work} is [a novel|a play|a film|an opera|a collection of stories] by the {nat} [author|writer|artist] {full} , [first shown|released|published] in {y0} . It [tells|follows] the story of {job:a} from {town} who [finds|inherits|loses] {thing:a} and is [followed|hunted|helped] by {job:a} .
        {work} is the [first|second|third|fourth|last] album by the {nat} {genre} [group|band|singer] {band} , recorded at {town} and released on {date} {y0} . It [contains|has] {small} songs , [most|many] of them [written|composed] by {full} .
    """),
    "work_body": lines("""
        {last} [began|started] the work in {year} , [after|before|during] a journey to {country} . In a letter to {name} he [described|explained] the {matter} of the {quality} {job} as " [the heart|the purpose|the weakness] of the whole " .
        [The first version|An early draft] was [rejected|refused] by {name} , who thought it {praise} . {last} [rewrote|shortened] it within {count} weeks and [added|removed] the scene in the {building} .
        The [main|central] figure , {first} , is {quality:a} {job} who [dreams|speaks|writes] of {nature:a} in {country} . {first} , his {quality} [sister|brother|rival|neighbour] , [steals|breaks|sells] the {thing} and so [begins|ends] their {matter} .
        [It|The work] was [well|poorly|warmly|coldly] received . {source:cap} [praised|criticised|noted] its {idea} and its {quality} language , [while|whereas] {source} [found|thought] the [ending|second half|music] {praise} .
        It sold {thousands} copies in its first [year|month|week] and was [translated|adapted] into {count} languages . A [stage|radio|film] version by {name} [opened|was heard] in {place} in {year} .
        The music [makes use|relies] [of|on] {instrument} , {instrument} and {quality:a} choir . The [opening|closing] part , [based|built] on {national:a} song , [lasts|takes] {small} minutes .
        {work} won the {place} Prize for the best {national} work of {year} , [ahead of|together with] {genre:a} piece by {name} .
        [Modern|Later] [readers|critics] have [stressed|discussed|questioned] the {idea} between the {job} and the {job} , and the [role|use] of the {colour} {thing} as [a sign|an image] of {idea} .
    """),
    # --- ships and buildings
    "ship_open": lines("""
        {ship} was {material:a} [steamer|schooner|frigate|ferry|cruiser] built at {town} for the {nat} [navy|line|government] in {y0} . She was {hundreds} feet long , [carried|had] {small} guns and a crew of {hundreds} , and could reach {small} knots .
        {ship} was the [first|last|second] of {count} ships of the {place} class , [ordered|designed] by {full} . [Laid down|Begun] in {month} {y0} at {town} , she was launched on {date} [in the presence of|by] {name} .
    """),
    "ship_body": lines("""
        In {year} she [carried|brought] {hundreds} [soldiers|passengers|emigrants] from {town2} to {country} , a voyage of {tens} days . Captain {name} [reported|complained] that the {material} hull was {praise} .
        On {date} {year} , {adverb} and without warning , the ship [struck|hit] a [reef|rock|sandbank] near {place} . [All|Most|{small}] of the crew were saved by {job:pl} from the shore , [but|and] the cargo of {thing:pl} and {food:pl} was lost .
        She was [refitted|repaired] at {town2} between {month} and {month} of {year} , when {count} new boilers and {material:a} deck were [added|installed] . Her speed [rose|fell] by {count} knots .
        During {event} {ship} [escorted|met|sank|captured] the {national} [vessel|steamer] {place} off the {direction} coast of {country} . {name} , her commander , was [wounded|promoted|dismissed] .
        [Sold|Handed over] to {job:a} of {place} in {year} , she served as a [prison|store|training] ship . In {year} she was broken up , and her {thing} [may|can] be seen in the {building} of {town} .
        The armament [consisted|was made up] of {small} heavy guns in {count} turrets and {tens} light ones . The armour , of {national} steel , was {small} inches thick [at|above] the waterline .
    """),
}  # fmt: skip

KINDS = {
    "person": ("{full}", "person_open", ("person_life", "person_life", "person_legacy")),
    "town": ("{town}", "town_open", ("town_body", "town_body")),
    "species": ("{adj:cap} {animal1}", "species_open", ("species_body", "species_body")),
    "work": ("{work}", "work_open", ("work_body", "work_body")),
    "ship": ("{ship}", "ship_open", ("ship_body",)),
}
SECTIONS = {
    "person": [["Early life", "Background"], ["Career", "Work", "Later years"], ["Legacy", "Honours"]],
    "town": [["History", "Name and history"], ["Economy", "Geography", "Culture", "Buildings"]],
    "species": [["Description", "Appearance"], ["Behaviour", "Distribution", "Ecology"]],
    "work": [["Background", "Production", "Plot"], ["Reception", "Music and style", "Release"]],
    "ship": [["Service", "Design and service", "History"]],
}  # fmt: skip

GRAMMAR = Grammar(ENGLISH, RULES)


def _names(rng: Random, kind: str) -> dict[str, str]:
    """The names that stay fixed through one article."""
    birth = "birthyear" if kind == "person" else "year"
    bound = GRAMMAR.bind(
        rng, boy1="boy", last="surname", town="place", town2="place", land="country",
        nat="national", job1="job", job2="job", animal1="animal", adj="adjective",
        river="river", y0=birth, dir="direction",
    )  # fmt: skip
    bound["full"] = f"{bound['boy1']} {bound['last']}"
    bound["y1"] = str(int(bound["y0"]) + between(rng, 80, 92))
    bound["work"] = GRAMMAR.expand(
        "[The {quality:cap} {thing:cap}|{idea:cap} and {idea:cap}|The {job:cap} of {place}|{quality:cap} {nature:pl:cap}]",
        rng,
    )
    bound["band"] = GRAMMAR.expand(
        "[The {quality:cap} {animal:pl:cap}|{place} {thing:pl:cap}]", rng
    )
    bound["ship"] = GRAMMAR.expand("[HMS|SS|MV] [{place}|{girl} {surname}|{quality:cap}]", rng)
    return bound


def document(rng: Random) -> list[str]:
    """The rows of one article: title, opening, then sections of one or two paragraphs."""
    kind = pick(rng, sorted(KINDS))
    title, opening, bodies = KINDS[kind]
    bound = _names(rng, kind)
    rows = [f"= {GRAMMAR.expand(title, rng, bound)} =", GRAMMAR.draw(opening, rng, bound)]
    unused = {body: shuffled(rng, GRAMMAR.templates(body)) for body in bodies}
    for body, headings in zip(bodies, SECTIONS[kind], strict=True):
        paragraphs = [_paragraph(rng, unused[body], bound) for _ in range(between(rng, 1, 2))]
        if any(paragraphs):
            rows += [f"= = {pick(rng, headings)} = =", *filter(None, paragraphs)]
    return [_spaced(row) for row in rows]


def _paragraph(rng: Random, unused: list[str], bound: dict[str, str]) -> str:
    """Two or three sentences, taken from `unused` for good; empty when there are none left."""
    count = between(rng, 2, 3)
    taken, unused[:] = unused[:count], unused[count:]
    sentences = [GRAMMAR.expand(template, rng, bound) for template in taken]
    if sentences and rng.random() < 0.5:
        sentences.append(GRAMMAR.draw("aside", rng, bound))
    return " ".join(sentences)


def _spaced(text: str) -> str:
    """Hyphens are split off, as in WikiText."""
    return re.sub(r"(\w)-(\w)", r"\1 @-@ \2", text)
