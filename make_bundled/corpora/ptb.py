# ruff: noqa: E501 - a template stays on one line
"""Financial newswire in the Penn Treebank's dress: lower case, `N` for numbers, `<unk>`."""

from random import Random

from make_bundled.corpora.grammar import Grammar, Rule, between, lines, pick, words
from make_bundled.corpora.words import ENGLISH

RULES: dict[str, Rule] = {
    "sector": words("""
        airline banking brewing cable cement chemical chip clothing coal computer copper cotton
        cruise dairy defense drug electronics energy engineering food freight fuel furniture gas
        grain hardware hotel housing insurance jewelry leasing lumber machinery media medical metals
        mining mortgage motor newspaper nickel oil packaging paper pharmacy pipeline plastics poultry
        power property publishing rail recycling retail rubber shipping shoe silver software soybean
        steel sugar telecom textile timber tire tobacco tool toy travel trucking uranium utility waste
        water wheat wool zinc
    """),
    "tail": words("corp. inc. co. group holdings ltd. industries international partners bancorp"),
    "firm": lines("""
        {surname} {tail}
        {surname} & {surname}
        {place} {sector} {tail}
        {surname} {sector} {tail}
        united {sector} {tail}
        <unk> {sector} {tail}
        national {sector} {tail}
        {place} {tail}
    """),
    "role": words("""
        chairman president treasurer analyst economist trader strategist spokesman spokeswoman director
        broker banker lawyer adviser executive consultant manager dealer controller accountant
    """),
    "person": ["{first} {surname}", "mr. {surname}", "ms. {surname}", "{first} <unk>"],
    "desk": lines("""
        {person} , {role:a} at {firm}
        {person} , {firm} 's {role}
        the company 's {role} , {person}
        {person} of {firm}
        {role:a} in {place}
    """),
    "sum": ["$ N million", "$ N billion", "N million yen", "N million pounds", "about $ N million",
            "more than $ N billion", "as much as $ N million", "N billion marks"],
    "span": ["{when}", "{when}", "from a year earlier", "for the N months ended {month} N",
             "to $ N a share", "to N cents a share from N cents"],
    "bulk": ["$ N million worth", "N tons", "N million tons", "about N tons", "$ N billion worth"],
    "measure": words("""
        earnings revenue sales profit income output orders exports imports deposits dividends costs
        expenses premiums inventories prices margins receipts royalties shipments wages fees losses
        production spending lending borrowing
    """),
    "rise": words("rose climbed jumped gained advanced surged increased soared widened edged_up"),
    "drop": words("fell declined dropped slid tumbled plunged slipped eased sank narrowed edged_down"),
    "bill": lines("""
        the {ministry} bill
        the {matter} of foreign {measure}
        a tax on {sector} {measure}
        new rules for {sector} companies
        the {quality} trade treaty with {country}
        the sale of state {sector} plants
    """),
    "cause": lines("""
        because of {quality} demand for {thing:pl}
        partly because of {quality} weather in {country}
        reflecting {quality} {sector} prices
        on news of {matter:a} at {firm}
        amid {idea} about the {sector} industry
        as {job:pl} [bought|sold] {sector} shares
        despite {quality} competition from {national} makers
        after {matter:a} over {measure} in {country}
        following the strike by {job:pl} in {place}
    """),
    "when": lines("""
        [yesterday|today|friday|monday|tuesday|wednesday|thursday]
        in the [first|second|third|fourth|latest] quarter
        last [month|week|year|spring|summer|winter]
        in {month}
    """),
    "sentence": lines("""
        {firm} said {measure} {rise} N N [to {sum}|] {span}
        {firm} said {measure} {drop} N N [to {sum}|] {span} {cause}
        {firm} [reported|posted|expects] {measure} of {sum} , compared with {sum} {when}
        [net|operating|pretax] income {rise} [N N|to {sum}] {span} {cause}
        {firm} agreed to [buy|acquire|sell] {firm} for {sum} in [cash|stock|notes]
        {firm} said it [will|plans to|may|does n't expect to] [close|sell|expand|build] its {sector} [plant|unit|business] in {place} [, {country}|]
        {firm} named {person} {role} , succeeding {person} , who [resigned|retired|died] {when}
        {person} , N years old , was [elected|named|appointed] {role} of this {sector} concern
        {desk} said the {matter} " [is|was|could be] {quality} " for {sector} [stocks|companies|prices]
        " we [are|were] {quality} about the {matter} , " said {desk}
        " the {matter} is {quality} [and|but] the {matter} is n't , " {desk} said {when}
        in {place} trading , {sector} shares {rise} {adverb} {cause}
        {sector} futures {drop} N [cents|dollars|points] {when} {cause}
        the dow jones index of {sector} stocks {drop} N to N {when}
        the [dollar|yen|pound|mark] {rise} {adverb} against the [franc|lira|peso|krona] {cause}
        the ministry of {ministry} said {national} {sector} {measure} {rise} N N {span}
        a {place} court [ordered|told|allowed] {firm} to [pay|return|seek] {sum} {cause}
        {person} , the {national} minister of {ministry} , [opposes|favors|criticized] {bill}
        the [house|senate|committee|ministry] [approved|rejected|delayed] {bill} {when}
        lawmakers from {country} {adverb} [debated|discussed|supported] {bill}
        {job:pl} at the {place} {sector} plant [voted|refused|agreed] to [strike|accept the contract|return to work] {when}
        the company [makes|sells|imports] {thing:pl} , {thing:pl} and {material} [goods|parts]
        the {sector} maker has N [employees|stores|plants] in {country} and {country}
        the notes , rated <unk> by {surname} 's , were priced to yield N N
        {firm} filed a [suit|complaint|claim] against {firm} , [charging|alleging] {idea} in the sale of {thing:pl}
        [some|many|most|a few] {role:pl} [doubt|believe|fear|say] that {sector} {measure} will [rise|fall|recover] {when}
        under the [plan|terms|agreement] , {firm} will [receive|issue|exchange] N shares for each {firm} share
        traders said the {matter} of {firm} {adverb} [helped|hurt|lifted|depressed] {sector} [prices|shares]
        the {quality} [offer|plan|merger] [requires|needs|lacks] the approval of {firm} 's [holders|lenders|directors]
        {firm} , based in {place} , [recently|{adverb}] [hired|dismissed|retained] N {job:pl}
        in composite trading on the exchange , {firm} closed at $ N , [up|down] N cents
        {country} [will|plans to] [lend|sell|ship] {country} {bulk} of {sector} [equipment|products] {when}
        the price of {material} {drop} to $ N a ton {cause}
        " it was {quality:a} [day|week|quarter] for {thing} makers , " {person} said
        {person} [bought|owns|sold] N N of {firm} , according to a filing {when}
        a spokesman for {firm} declined to [comment|discuss the {matter}|elaborate]
        ad notes : {firm} [won|lost] the {food} account of {firm} , with [billings|spending] of {sum}
    """),
}  # fmt: skip

LINKS = ["meanwhile", "separately", "earlier", "still", "in addition", "however"]
GRAMMAR = Grammar(ENGLISH, RULES)


def document(rng: Random) -> list[str]:
    """A report of three to seven sentences, one a row."""
    firm = GRAMMAR.draw("firm", rng)
    rows = []
    for _ in range(between(rng, 3, 7)):
        text = GRAMMAR.draw("sentence", rng)
        if rng.random() < 0.3:
            text = f"{pick(rng, LINKS)} , {text}"
        rows.append(_lowered(text.replace("the company", firm) if rng.random() < 0.5 else text))
    return rows


def _lowered(text: str) -> str:
    """Lower case throughout, save for the number sign `N`."""
    return " ".join(word if word == "N" else word.lower() for word in text.split())
