# ruff: noqa: E501 - a template stays on one line
"""Web pages of many kinds: blogs, shops, recipes, forums, news, adverts, guides and notices."""

from random import Random

from make_bundled.corpora.grammar import Grammar, Rule, between, lines, number, pick, shuffled
from make_bundled.corpora.words import ENGLISH

COMMON: dict[str, Rule] = {
    "price": ["${small}.99", "${tens}", "${hundreds}", "£{small}.50", "£{tens}.95", "€{tens}"],
    "site": ["{surname}{thing}s.com", "the{quality}{animal}.org", "{place}{topic}.co.uk"],
    "firm": ["{surname} {topic:title}", "{place} {topic:title} Company", "The {quality:cap} {thing:cap}",
             "{surname} & {surname}", "{quality:cap} {animal:cap} {topic:title}"],
    "tag": ["{topic}", "{food}", "{place}", "{sport}", "{science}", "{animal:pl}"],
    "kin": ["husband", "wife", "sister", "brother", "mother", "father", "daughter", "son", "aunt",
            "neighbour", "boss", "colleague", "grandmother", "uncle", "cousin", "roommate"],
    "phone": ["0{tens} {hundreds} {hundreds}"],
    "clock": ["{small} am", "{small}:30 pm", "noon", "{small}:15"],
    "small": number(2, 12),
}  # fmt: skip

PAGES: dict[str, Rule] = {
    "blog": lines("""
        I [have been|was] meaning to write about {topic} [for weeks|since {month}|all year], but my {kin} and the {quality} {animal} kept me busy.
        [Last {weekday}|On {weekday}] we drove to {place} to see the {building}, and it was [even more {quality} than|just as {quality} as] I [expected|remembered|feared].
        [Honestly|To be honest], I never thought I would enjoy {topic} so much; it makes me feel {quality} and {quality}.
        The {nature} was full of {plant:pl}, and somebody had left {quality:a} {thing} on a bench.
        My {kin} says that {idea} matters more than {idea}, and I [think|suspect|know] that is [true|wrong|only half true].
        We stayed at {quality:a} little {building} run by {job:a} named {first}, who served {food} {dish} for breakfast.
        [Here are|Below are] {count} photos of the {thing} I [painted|found|bought|mended] for {price} in {place}.
        What do you think? [Leave|Post] a comment below and tell me about your own {topic} {matter:pl}.
        [Next week|Next time|Tomorrow] I will show you how I {deed} {material} {thing:pl}, so stay tuned!
        It {adverb} reminded me of the {quality} summer in {country}, when {first} lost {thing:a} in the {nature}.
        Some days are {quality} and some are {quality}, but {idea} always helps.
    """),
    "shop": lines("""
        This {quality} {material} {thing} is {adverb} made by {national} {job:pl} and comes in {colour}, {colour} and {colour}.
        Now only {price} instead of {price}! [Order|Buy] before {weekday} and get free delivery to {country}.
        Size: {small} x {small} inches. Weight: {hundreds} g. Material: {material} and {material}.
        Each {thing} is packed in {quality:a} {material} box and makes {quality:a} gift for any {job} or {kin}.
        Customers who bought this item also bought: {colour} {thing}, {material} {thing}, {quality} {thing}.
        Do not {deed} or {deed} the {thing} with hot water. Clean {adverb} with {quality:a} cloth.
        "{quality:cap} and {quality}! My {kin} loves it." – {first}, {place}
        We have sold {thing:pl}, {thing:pl} and {thing:pl} online since {year}, and our {job:pl} answer every email within {count} hours.
        Please allow {count} to {small} days for shipping. Returns are accepted within {tens} days.
        In stock: {tens}. Item number {thousands}. Rated {small} out of 12 by {hundreds} buyers.
        Add the matching {colour} {thing} for {price} and save {small}%.
    """),
    "recipe": lines("""
        This {quality} {food} {dish} is {quality:a} [dinner|lunch|supper|treat] for {count} people and takes only {tens} minutes.
        You will need: {tens} g {staple}, {count} {food:pl}, {small} spoons of {staple}, {food:a} and a pinch of salt.
        [Chop|Peel|Slice|Wash] the {food:pl} and mix them {adverb} with the {staple} in {quality:a} bowl.
        Heat the oven to {hundreds} degrees and [grease|warm|line] {material:a} dish with {staple}.
        Add the {staple} [slowly|at once|bit by bit] and stir until the sauce is {quality} and {quality}.
        [Bake|Boil|Simmer|Fry] for {tens} minutes, or until the top looks {colour}.
        Serve it {quality} with {food} {dish} and a little {staple}. My {kin} likes it with {food}.
        Tip: if you have no {food:pl}, use {food:pl} or even {food:pl} instead.
        The {dish} keeps for {count} days in {material:a} box, and it freezes {adverb}.
        I got this recipe from {first}, {job:a} in {place}, who learned it in {country}.
    """),
    "forum": lines("""
        {first}{tens}: Does anyone know how to {deed} {quality:a} {thing}? Mine [broke|fell apart|stopped working] after {count} days.
        {surname}_{topic}: [Have you tried|Try] {topic}. It worked for my {thing}, and I am only {job:a}.
        {first}: I had the same problem with my {vehicle}. The {material} part was {quality}, so I had to {deed} it.
        Re: {topic} question. [Thanks|Thank you] all, the {thing} works {adverb} now! Closing this thread.
        {quality:cap}{animal:cap}: That is {quality:a} idea. You will only {deed} the {thing} and lose {price}.
        Joined: {month} {year}. Posts: {hundreds}. Location: {place}, {country}.
        {first}{small}: Please use the search function before you post. We had this {matter} last {month}.
        Quote from {surname}: "Never {deed} {material} with {thing:a}." Sorry, but I {adverb} disagree.
        Moderator: this topic about {topic} was moved to {sport} and {topic}. [Stay polite|Keep it friendly], please.
    """),
    "news": lines("""
        {place:cap} – {job:cap} {name} was [honoured|arrested|injured|elected] on {weekday} after {matter:a} at the {building}, police said.
        The council [approved|rejected|delayed] a plan to [build|close|repair] the {building} near the {nature}, which would cost {thousands} pounds.
        "This is {quality:a} day for {place}," said {name}, who has worked as {job:a} for {tens} years.
        {colour:a:cap} {vehicle} [hit|missed|blocked] the {building} on {surname} Road at {clock}, and {count} people were [hurt|rescued].
        More than {hundreds} {job:pl} [marched|gathered] in {place} to [demand|support] {matter:a} and better {topic}.
        The {animal}, which escaped from the {building} in {place}, was {adverb} caught by {job:a} with {thing:a}.
        Weather for {weekday}: {quality} in the {direction}, {quality} along the coast, up to {small} degrees.
        {place} [beat|lost to] {place} {small}–{small} in the {sport} cup, and {surname} scored {count} times.
        Anyone with information should call {phone} or visit the {building} in {place}.
        The {quality} {matter:pl} of {topic} are [rising|falling], according to a study by the university of {place}.
    """),
    "advert": lines("""
        {firm} is looking for {quality:a} {job} to join our team in {place}, {country}.
        You have {count} years of experience in {topic} and {science}, speak {national} and work {adverb}.
        We offer {quality} hours, {tens} days of holiday and {price} an hour. [Apply|Write to {name}] before {date}.
        For rent: {quality:a} {count}-room flat near the {building}, with {material} floors and {quality:a} view of the {nature}. {price} a week.
        For sale: {colour} {vehicle}, built in {year}, {thousands} miles, {quality} engine. Call {first} on {phone}.
        Lost: {quality:a} {colour} {animal} called {first}, last seen near the {building} in {place}. Reward of {price}!
        The {job} will [check|plan|lead] {topic} projects and report to the head of {topic}.
        Our {building} has {tens} rooms, {quality:a} {nature} and {quality} {food} {dish:pl}. Book now on {site}.
        {firm} [gives|is proud to give] {idea} and {idea} to {job:pl} in {place} since {year}.
    """),
    "guide": lines("""
        {count:cap} [tips|rules|ideas] for better {topic}: start {adverb}, keep {quality:a} {thing} at hand and ask {job:a}.
        Step {small}: {deed} the {thing} {adverb} and {deed} the {material} part with {thing:a}.
        [Many|Most|Some] people [forget|believe] that {topic} needs {idea}, but {idea} is just as important.
        If the {thing} is {quality}, [do not worry|wait for {small} minutes|turn it {adverb}] and {deed} it again.
        Experts in {science} [say|claim|found] that {topic} can [improve|harm|change] your {idea} by {small}%.
        What is the difference between {topic} and {topic}? The first is {quality}, the second is {adverb} {quality}.
        Always {deed} your {thing:pl} before you {deed} them, and never leave {staple} near the {thing}.
        [In short|To sum up], {topic} is {quality} if you have {idea}, {idea} and {quality:a} {thing}.
        Our guide to {topic} was written by {name}, {job:a} with {tens} years of {idea}.
    """),
    "notice": lines("""
        The {place} {sport} club meets every {weekday} at {clock} in the {building}. [Beginners|Guests|{job:pl:cap}] are welcome!
        On {date} the {building} [hosts|presents] {name} on {instrument}, with music from {country} and {country}.
        Tickets cost {price} and are sold at the {building}, by phone on {phone} or at {site}.
        [Parents|Pupils] are asked to bring {thing:a}, {quality:a} {thing} and some {food:pl} on {weekday}.
        Thank you to {name} for the {quality} {food} {dish:pl} and to all {job:pl} who helped to {deed} the {thing:pl}.
        The {science} course starts on {date} and costs {price}. Please bring {quality:a} {thing} and {thing:a}.
        Class {small} [won|visited] the {building} and drew {quality} {animal:pl} and {plant:pl}.
        The annual {food} fair in {place} [opens|ends] on {weekday} with {animal} races and {quality:a} {instrument} band.
        Volunteers are needed to {deed} {thing:pl} in the {nature}. [Wear|Bring] {quality} shoes!
    """),
    "review": lines("""
        I bought this {thing} [for|from] my {kin} in {month}, and it is still {quality} [today|after {count} weeks].
        The {building} was {quality}, the {dish} was {quality} and the {job} was {adverb} {quality}. {small}/10.
        [Pros|Good]: {quality}, {quality}, looks {quality}. [Cons|Bad]: {quality} handle, smells of {material}.
        [Would|Will] I go back to {place}? Yes, [but only|if only] for the {food} {dish}.
        The book by {name} is about {job:a} who lives in {nature:a} and dreams of {idea}. I found it {quality}, but the ending is {quality}.
        {count:cap} stars for {firm}. They were {quality} on the phone, and the {thing} arrived {adverb}.
        [Do not|Never] buy the {colour} one! It is made of {quality} {material} and my {animal} [ate|broke|hates] it.
        Compared with the {thing} from {surname}, this one is {quality}, {quality} and {price} cheaper.
    """),
    "about": lines("""
        {firm} was founded in {year} by {name}, {job:a} from {place} with {quality:a} {matter}.
        Today we {deed} {thing:pl} and {thing:pl} for {job:pl} in {count} countries.
        Our {matter} is {quality}: {quality} {topic}, {quality} prices and {idea} for everyone.
        [Contact|Visit] us at {tens} {surname} Street, {place}. We are open from {weekday} to {weekday}, {clock} to {clock}.
        © {year} {firm}. All rights reserved. [Privacy policy|Terms of use|Contact us|Site map].
        This site uses cookies to improve your {matter:pl}. [Accept|Read more].
        The team: {name} ({topic}), {name} ({topic}) and {first}, our {quality} office {animal}.
        We [support|sponsor] {sport} in {place} and give {small}% of our profit to {topic} for {animal:pl}.
    """),
}  # fmt: skip

TITLES: dict[str, Rule] = {
    "blog_title": ["My {quality} {weekday} in {place}", "{topic:cap} and me", "{quality:a:cap} {nature} in {country}",
                   "Why I love {topic}", "{count:cap} days of {topic}"],
    "shop_title": ["{quality:title} {material:title} {thing:title} – {firm}", "{colour:title} {thing:title} | {site}",
                   "Buy {thing:pl} online", "{material:title} {thing:title}, {small} inch"],
    "recipe_title": ["{quality:cap} {food} {dish}", "{food:cap} and {food} {dish}", "How to make {national} {food} {dish}",
                     "{first}'s {quality} {dish}"],
    "forum_title": ["Topic: {topic} for {job:pl}", "[Solved] My {thing} is {quality}", "Help! {quality:cap} {vehicle}",
                    "Which {thing} should I buy?"],
    "news_title": ["{job:cap} finds {thing} in {nature}", "{place} {building} to close", "{quality:cap} {month} for {place}",
                   "{matter:cap} over {topic} in {place}"],
    "advert_title": ["{job:cap} wanted in {place}", "Jobs in {topic}", "{quality:cap} {building} for rent", "Classifieds, {place}"],
    "guide_title": ["How to {deed} {thing:a}", "{topic:cap} for beginners", "{count:cap} {topic} mistakes", "{topic:cap} or {topic}?"],
    "notice_title": ["News from the {building}", "{place} {sport} club", "{month} at the {building}", "{science:cap} week"],
    "review_title": ["Review: {quality} {thing}", "{firm} – {hundreds} reviews", "{name}: The {quality:cap} {nature:cap}", "Was it worth {price}?"],
    "about_title": ["About {firm}", "{firm} – {topic} since {year}", "Welcome to {firm}", "Who we are"],
}  # fmt: skip

GRAMMAR = Grammar(ENGLISH, COMMON, PAGES, TITLES)


def document(rng: Random) -> list[str]:
    """One page, as one row: a title, then four to seven sentences in one or two paragraphs."""
    kind = pick(rng, sorted(PAGES))
    bound = GRAMMAR.bind(rng, firm="firm", topic0="topic")
    title = GRAMMAR.draw(f"{kind}_title", rng, bound)
    body = shuffled(rng, GRAMMAR.templates(kind))[: between(rng, 4, 7)]
    sentences = [GRAMMAR.expand(template, rng, bound) for template in body]
    if kind in ("forum", "advert") or rng.random() < 0.2:
        return ["\n".join([title, *sentences])]
    cut = between(rng, 2, len(sentences))
    paragraphs = [" ".join(part) for part in (sentences[:cut], sentences[cut:]) if part]
    if rng.random() < 0.3:
        tags = ", ".join(GRAMMAR.draw("tag", rng) for _ in range(between(rng, 2, 4)))
        paragraphs.append(f"Tags: {tags}")
    return ["\n".join([title, *paragraphs])]
