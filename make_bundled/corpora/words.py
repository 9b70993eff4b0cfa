"""English word lists and the name rules that several corpora share."""

from random import Random

from make_bundled.corpora.grammar import Rule, number, pick, words

GIRLS = words("""
Ada Agnes Alma Amelia Anita Anna Astrid Beatrice Bella Bridget Camilla Carla Cecily Clara Cora
Daisy Daphne Delia Diana Dora Edith Elena Elise Ella Emma Erin Esther Eva Fiona Flora Freya Gemma
Greta Hannah Harriet Hazel Heidi Helen Hilda Holly Ida Ingrid Irene Iris Isla Ivy Jane Jenny Joan
Julia June Karen Kate Laura Lena Lily Linda Lola Louise Lucy Lydia Mabel Maria Martha Maya Mia
Molly Mona Nadia Nancy Nina Nora Olga Olive Opal Pam Paula Penny Petra Phoebe Polly Rosa Rose Ruby
Ruth Sadie Sally Sara Selma Sonia Stella Susan Tara Tess Thea Tilda Una Vera Violet Wendy Yara Zoe
""")
BOYS = words("""
Aaron Adam Adrian Alan Albert Alec Alfred Andrew Anton Arthur Barney Ben Bruno Caleb Carl Cedric
Clive Conrad Cyril Dale Daniel David Dennis Dominic Duncan Edgar Edwin Elias Eric Ethan Felix Finn
Frank Fred Gareth George Gilbert Glen Gordon Graham Gus Hans Harold Harry Hector Henry Hugo Ian
Isaac Ivan Jack Jacob James Jasper Jerome Joel John Jonas Julian Kai Karl Keith Kenneth Lars Leo
Leon Lewis Louis Luke Magnus Marco Mark Martin Max Miles Milo Morris Ned Neil Nigel Noah Oliver
Omar Oscar Otto Owen Pablo Patrick Paul Peter Philip Quentin Ralph Ray Reuben Robert Roger Roy
Rufus Sam Saul Sidney Simon Stanley Stephen Theo Thomas Tim Toby Tom Victor Vincent Walter Will
""")
SURNAME_HEADS = words("""
Ald Ash Bar Beck Black Brad Bright Brook Burn Cald Carl Chad Clay Cole Crom Dal Den East Elm Fair
Far Garl Glad Gold Green Hal Hart Hath Hazel Hol Kirk Lang Lang Lock Lyn Mar Mead Mill Nor Oak
Pen Quar Rad Red Rock Rush Sand Shel Sher Stan Stone Thorn Traf Wake War Web Wes White Win Wood
""")
SURNAME_TAILS = words("""
berg bourne burn by combe cott croft dale den field ford gate ham hurst land leigh ley low man
more ner ridge son stead stone ton well wick wood worth
""")
SURNAMES = words("""
Abbott Adler Archer Baker Barlow Becker Bishop Bowen Boyle Brandt Brennan Burke Carver Castillo
Chandler Cooper Costa Cruz Darcy Dixon Doyle Duarte Eklund Ellis Farrow Fischer Fletcher Foster
Fraser Gallo Garner Gibbs Granger Gupta Haddad Hansen Harper Hayes Hooper Hughes Ibarra Jansen
Jennings Kaplan Kato Keane Keller Khan Kovac Larsen Lindgren Lopez Lowe Mackay Malone Marsh Mason
Mendez Mercer Meyer Moran Moreau Murphy Nair Navarro Novak Okafor Olsen Ortega Osman Palmer Parr
Petrov Pike Porter Quinn Ramos Reed Rinaldi Rossi Rowe Sato Sawyer Schmidt Shah Silva Skinner
Sutton Tanaka Thorpe Tucker Turner Underhill Vance Vega Vogel Wagner Walsh Weaver Weber Yates
""")
PLACE_HEADS = words("""
Alder Amber Apple Barrow Bay Bell Birch Black Blen Bram Bridge Broad Cam Castle Chel Chester Clear
Cold Copper Crow Deer Dun East Elder Fal Fern Fox Glen Grey Hamp Harrow Hawk Haver High Iron
King Lake Lan Lark Little Long Maple Marl Mill Moor Nether New North Old Otter Oxen Pine Port
Raven Rich Rose Salt Sea Shep Silver South Spring Stam Stock Stour Summer Swan Thorn Tor Upper
Wal Water West Whit Wild Willow Wind Winter Wolf
""")
PLACE_TAILS = words("""
borough bridge brook bury chester cliff combe cross dale den fall fell field fleet ford gate grove
ham haven hill hurst land ley mere minster mont mouth point pool port shore stead stow ton vale
view ville wick wood worth
""")
COUNTRIES = words("""
Argentina Australia Austria Bolivia Brazil Bulgaria Canada Chile Colombia Croatia Denmark Ecuador
Egypt Estonia Finland France Germany Ghana Greece Hungary Iceland India Indonesia Ireland Italy
Jamaica Japan Kenya Latvia Mexico Morocco Nepal Norway Peru Poland Portugal Romania Scotland
Senegal Spain Sweden Switzerland Tanzania Thailand Tunisia Turkey Uruguay Vietnam Wales
""")
NATIONAL = words("""
American Australian Austrian Belgian Brazilian British Canadian Chilean Chinese Danish Dutch
Egyptian English Finnish French German Greek Hungarian Indian Irish Italian Japanese Kenyan
Korean Mexican Moroccan Norwegian Peruvian Polish Portuguese Russian Scottish Spanish Swedish
Swiss Turkish Welsh
""")
MONTHS = words("""
January February March April May June July August September October November December
""")
DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
COUNTS = words("two three four five six seven eight nine ten eleven twelve fifteen twenty thirty")

JOBS = words("""
accountant actor architect artist astronomer baker banker barber biologist blacksmith bookseller
botanist brewer bricklayer builder butcher carpenter chef chemist clerk coach cobbler composer
conductor cook curator dancer dentist designer diplomat doctor driver economist editor electrician
engineer farmer fisherman florist gardener geologist glazier goldsmith grocer guard historian
illustrator inspector inventor jeweller joiner journalist judge lawyer lecturer librarian locksmith
mason mathematician mechanic merchant midwife miller miner musician novelist nurse optician painter
pharmacist philosopher photographer physician pilot plumber poet porter postman potter printer
programmer publisher ranger receptionist reporter sailor saddler scholar sculptor secretary
shepherd shopkeeper singer soldier solicitor steward surgeon surveyor tailor teacher tiler
translator undertaker vet violinist waiter watchmaker weaver welder zoologist
""")
ANIMALS = words("""
ant badger bat bear beaver bee beetle bison blackbird bull butterfly camel cat caterpillar cheetah
chicken cow crab crane cricket crow deer dog dolphin donkey dove dragonfly duck eagle eel elephant
falcon finch fox frog gecko giraffe goat goose gorilla grasshopper hamster hare hawk hedgehog
heron horse hummingbird jackdaw jay kangaroo kingfisher kitten ladybird lamb leopard lion lizard
llama lobster lynx magpie mole monkey moose moth mouse newt octopus ostrich otter owl ox panda
panther parrot peacock pelican penguin pheasant pig pigeon pony puffin puppy rabbit raccoon rat
raven reindeer rhino robin rooster salmon seagull seal shark sheep shrew snail snake sparrow
spider squid squirrel stork swallow swan tiger toad tortoise trout turkey turtle viper walrus wasp
weasel whale wolf woodpecker worm wren zebra
""")
FOODS = words("""
almond apple apricot artichoke aubergine avocado banana bean beetroot blackberry
blueberry cabbage carrot cauliflower cherry chestnut chickpea coconut
courgette cranberry cucumber currant date fig gherkin gooseberry grape
grapefruit hazelnut leek lemon lentil lime mango melon mushroom nectarine olive
onion orange papaya parsnip peach peanut pear pepper pineapple pistachio plum pomegranate
potato prune pumpkin quince radish raisin raspberry shallot sprout
strawberry tomato turnip walnut watermelon
""")
STAPLES = words("""
basil broccoli celery chard fennel garlic ginger kale mint parsley rhubarb rosemary sage spinach
sweetcorn thyme asparagus bacon beef buckwheat caramel chocolate coffee cornflour couscous
gelatine granola hummus lamb lard marzipan mayonnaise millet nutmeg oatmeal peanut_butter pesto
porridge saffron sesame soda soy_sauce toffee treacle turmeric vanilla veal yeast_extract
barley bread butter cheese chicken cinnamon cocoa cream flour ham honey jam milk mustard noodles
oats oil paprika pasta pork quinoa rice salt sauce sugar syrup tea tofu vinegar wheat yeast yogurt
""")
DISHES = words("""
bake broth burger cake casserole chowder chutney cobbler cookie crumble curry custard dumpling
flan fritter goulash gratin hotpot lasagne loaf muffin omelette pancake pasty pie pickle pizza
porridge pudding quiche relish risotto roast salad sandwich scone smoothie sorbet soup stew
stir-fry tart toastie trifle waffle wrap
""")
THINGS = words("""
anchor apron badge bag ball balloon banjo barrel basin basket bell belt bench blanket boat book
bottle bowl box bracelet brick broom brush bucket button cabinet candle cannon cap card carpet
cart chain chair chest clock cloth coat coin comb compass cradle crate crown cup curtain cushion
desk diary dish doll drawer dress drum easel engine envelope feather fence flag flask flute fork
frame funnel gate glass globe glove hammer handle harp hat helmet hinge hook jacket jar jewel jug
kettle key kite knife ladder ladle lamp lantern letter lid lock locket magnet mallet map marble
mask mat medal mirror mug nail napkin necklace needle net newspaper notebook oar oven paddle pail
paintbrush painting pan parcel pebble pen pencil piano pillow pipe plate plough pocket postcard
pot puppet purse quilt racket raft rake ribbon ring robe rope rug sack saddle sail saucer saw scarf
screw shawl shelf shell shield shirt shoe shovel sieve sign sketch skirt sledge slipper
sock spade spoon stamp statue stick stool stove suitcase sweater sword table tapestry teapot
telescope tent thimble ticket tile torch towel toy tray trophy trumpet trunk tube typewriter
umbrella uniform vase violin wallet wardrobe watch wheel wheelbarrow whistle
""")
BUILDINGS = words("""
abbey academy airport arcade arena bakery bank barn barracks brewery bungalow cabin cafe castle
cathedral chapel church cinema clinic college cottage courthouse dairy depot distillery factory
farmhouse fort foundry gallery garage granary greenhouse gymnasium hall hangar hospital hostel
hotel inn laboratory laundry library lighthouse lodge mansion market mill monastery museum
observatory office orphanage palace pavilion pharmacy post_office prison pub restaurant
school shop smithy stable stadium station studio temple theatre tower town_hall villa warehouse
windmill workshop
""")
NATURE = words("""
bay beach bog brook canyon cape cave cliff coast creek desert dune estuary field fjord forest
garden geyser glacier glade gorge gully harbour heath hedge hill island lagoon lake marsh meadow
moor mountain orchard peninsula plain plateau pond quarry ravine reef ridge river shore
slope spring strait stream summit swamp thicket valley volcano waterfall wetland wood
""")
PLANTS = words("""
acacia alder anemone ash aspen azalea bamboo beech begonia birch bluebell bramble buttercup cactus
camellia cedar clover cornflower cowslip crocus cypress daffodil dahlia daisy dandelion elm fern
foxglove geranium hawthorn heather hemlock holly honeysuckle hyacinth iris ivy jasmine juniper
larch laurel lavender lilac lily lupin magnolia maple marigold moss mulberry nettle oak orchid
palm pansy peony pine poplar poppy primrose reed rose rowan rush sorrel spruce sunflower sycamore
thistle tulip violet willow yew
""")
MATERIALS = words("""
aluminium amber bamboo brass brick bronze canvas ceramic chalk clay coal concrete copper cork
cotton felt flint glass gold granite gravel iron ivory lace lead leather limestone linen marble
nickel oak paper pine plaster plastic porcelain rubber sand sandstone silk silver slate steel
straw timber tin velvet wax wicker wool zinc
""")
VEHICLES = words("""
aeroplane ambulance barge bicycle bus canoe car carriage coach dinghy ferry glider helicopter
kayak lorry minibus motorbike rickshaw rowing_boat sailing_boat scooter sleigh steamer submarine
tandem taxi tractor train tram tricycle truck van wagon yacht
""")
INSTRUMENTS = words("""
accordion bagpipe banjo bassoon bell cello clarinet cornet cymbal drum fiddle flute guitar
harmonica harp horn lute lyre mandolin oboe organ piano piccolo recorder saxophone tambourine
trombone trumpet tuba ukulele viola violin xylophone
""")
SPORTS = words("""
archery athletics badminton baseball basketball bowling boxing canoeing chess climbing cricket
croquet curling cycling darts diving fencing football golf gymnastics handball hiking hockey judo
karate lacrosse netball orienteering polo rowing rugby sailing skating skiing snooker softball
squash surfing swimming tennis volleyball wrestling
""")
SCIENCES = words("""
acoustics agriculture algebra anatomy anthropology archaeology architecture astronomy biology
botany chemistry drama ecology economics education electronics engineering entomology ethics
finance forestry genetics geography geology geometry grammar history hydrology law linguistics
literature logic mathematics mechanics medicine metallurgy meteorology music navigation nursing
nutrition optics painting palaeontology pharmacy philosophy physics physiology poetry politics
psychology sculpture sociology statistics surgery theology toxicology zoology
""")
IDEAS = words("""
accuracy admiration adventure advice affection ambition anger anxiety attention authority balance
beauty behaviour belief boredom bravery calmness caution change charity cleanliness comfort
commitment compassion competition confidence confusion conscience cooperation courage courtesy
creativity criticism culture curiosity danger debt decline delay democracy desire despair
determination devotion dignity diplomacy discipline discovery discretion doubt duty economy
education effort elegance emotion empathy energy enthusiasm envy equality evidence excitement
exercise expectation experience exploration failure fairness faith fame fashion fear fitness
flexibility forgiveness freedom friendship fun generosity gratitude greed grief growth guilt
happiness harmony hatred health heritage honesty honour hope hospitality humility humour hunger
identity illness imagination imitation independence industry influence innocence innovation
instinct integrity intelligence intuition irony isolation jealousy joy justice kindness knowledge
labour laughter leadership leisure liberty literacy loneliness loyalty luck luxury maturity memory
mercy misery modesty motion music mystery neglect noise nostalgia obedience optimism order
organisation pain passion patience peace perfection permission persistence poverty power practice
praise precision prestige pride privacy profit progress promotion prosperity protection prudence
punctuality purity quality reason recognition reflection relaxation relief religion repetition
reputation research respect responsibility revenge reverence risk romance sacrifice safety
satisfaction secrecy security shame silence simplicity sincerity skill solidarity solitude sorrow
speed spirit stability status strength stress struggle style success support surprise suspicion
sympathy talent taste teamwork temptation tension thrift time tolerance tradition training
tranquillity trust truth uncertainty understanding unity vanity variety victory violence virtue
vision vitality warmth weakness wealth wisdom wit wonder worry zeal
""")
MATTERS = words("""
ability accident achievement action activity advantage affair agreement alliance announcement
answer apology appeal argument arrangement article assumption attempt attitude award ban bargain
barrier benefit bid bonus boycott budget campaign celebration census ceremony challenge chance
character choice claim clue collapse comment comparison complaint compromise concept concern
concert conclusion condition conference conflict connection consequence contest contract contrast
conversation cost crash crisis custom dance deadline deal debate decision decree demand description
design detail development diary difficulty discount discussion disease dispute distance donation
dream election emergency error escape essay estimate event examination example exception exchange
excuse exhibition expedition experiment explanation expression feature feeling festival fight fine
forecast fortune function future gesture gift goal grant guess habit hearing hint holiday idea
impression improvement incident initiative injury inquiry insult intention interruption interview
invention investigation invitation issue job joke journey judgement lecture legend lesson letter
limit list loan loss mandate manner mark meeting merger message method mistake mood moment motive
movement negotiation notice notion objection obligation obstacle occasion offer opening operation
opinion opportunity option origin outcome parade payment performance phase phrase pledge plan poll
position possibility preference principle priority problem procedure process programme project
promise proof proposal protest proverb purpose puzzle quarrel quest question quota race rally
reaction reality rebate reform refund rehearsal relation reminder remark report request reserve
response result reunion review reward rhythm riddle ritual routine rule rumour scandal scheme
schedule secret sentence service session settlement shift shortage signal solution speech
sponsorship standard statement strategy structure subsidy suggestion summit survey symbol system
target task tax technique tendency test theory threat thought title tour transition treaty trend
trial trick trip truce update verdict version view vote vow wager warning wedding wish
""")
TOPICS = words("""
advertising aviation banking beekeeping budgeting camping carpentry childcare cleaning coding
commuting composting cooking cosmetics decorating dentistry drawing dressmaking embroidery exams
exercise farming fasting fishing flooring furniture gaming gardening glassware grammar heating
homework housing hygiene insulation insurance investing ironing knitting leadership lighting
literacy marketing meditation mentoring mortgages motoring nutrition packing painting parenting
parking pensions photography plumbing pottery posture printing publishing quilting reading
recruitment recycling renting retirement revision safety saving scheduling sewing shipping shopping
sleep software spelling storage stretching sunscreen tailoring taxation teaching teamwork tiling
tourism transport travel tutoring upholstery volunteering walking weddings welding wellbeing writing
yoga
""")
QUALITIES = words("""
able ancient awkward beautiful bitter bold brave brief bright broad calm careful charming cheap
cheerful clean clever clumsy cold comfortable common complete complex cosy creamy crisp crooked
crowded cruel curious damp dark deep delicate delicious dense difficult dim dirty distant dry dull
dusty eager early easy elegant empty enormous exact excellent expensive faint fair faithful
familiar famous fancy fast fertile fierce fine firm flat foolish formal fragile fresh friendly
frozen full funny generous gentle giant gloomy golden graceful grand grateful great greedy handsome
happy hard harmless harsh heavy helpful hidden hollow honest hot huge humble hungry icy ideal
idle important impressive innocent jolly keen kind large late lazy lean light little lively local
lonely long loose loud lovely loyal lucky massive mellow merry mild modern modest muddy narrow
neat nervous new noble noisy odd official old open ordinary pale patient peaceful plain playful
pleasant polite poor popular practical precious pretty private proper proud pure quaint quick quiet
rapid rare raw ready reliable remarkable remote rich ripe rough round rude rural sad safe salty
savage scarce secret serious severe shallow sharp shiny short shy silent silly simple sleepy slight
slim slippery slow small smart smooth soft solid solitary sour spare special spicy splendid steady
steep sticky stiff strange strict striking strong stubborn sturdy subtle sudden sunny sweet swift
tall tame tender thick thin thirsty tidy tight tiny tired tough tranquil ugly unusual upright urban
useful vague vast vivid warm wary weak wealthy weary wet wicked wide wild wise wonderful wooden
worthy wrong young
""")
COLOURS = words("""
amber beige black blue brown crimson cream golden green grey indigo ivory lilac maroon orange pink
purple red scarlet silver teal turquoise violet white yellow
""")
ADVERBS = words("""
abruptly accidentally actively angrily anxiously awkwardly beautifully boldly
bravely briefly brightly briskly busily calmly carefully carelessly casually cautiously
cheerfully clearly closely clumsily correctly deeply deliberately directly
eagerly easily elegantly faintly faithfully firmly fondly formally
frankly freely generously gently gladly gracefully gradually gratefully greedily
happily hastily heavily honestly hurriedly joyfully keenly
kindly lazily lightly loudly lovingly loyally merrily mildly narrowly neatly
nervously nicely noisily obediently openly patiently perfectly
plainly playfully politely poorly precisely privately promptly properly proudly publicly quickly
quietly rapidly readily regularly reluctantly roughly sadly safely secretly seriously
sharply shyly silently simply sincerely sleepily slowly smoothly softly solemnly steadily
sternly strictly strongly suddenly sweetly swiftly tenderly thoroughly tightly
vaguely warmly weakly widely wildly willingly wisely
""")
DEEDS = words("""
admire adjust alter arrange assemble attach bake balance bend borrow build burn bury buy carry
carve check clean collect colour compare construct copy count cover crush cut decorate deliver
describe design destroy discover display divide drag draw drop dry dye empty engrave examine
exchange explore fasten fetch fill find finish fix fold frame gather grab guard hang heat hide hold
imagine improve inspect install invent iron lend lift load lock lose make mark measure melt mend
mix move notice open order pack paint patch place plan plant polish pour press print produce
protect pull push raise recognise remove rent repair replace rescue restore return roll rub scrape
scrub search sell send separate sew shake share sharpen shift sketch smell soak split spoil spread
steal stir store stretch study sweep swing tear test throw tie touch trace trade trim turn twist
unlock unpack untie unwrap use warm wash watch wear weigh wind wrap
""")

MINISTRIES = words("agriculture commerce culture defence education energy finance health transport")


def surname(rng: Random) -> str:
    """A family name, plain or built from two parts."""
    if rng.random() < 0.5:
        return pick(rng, SURNAMES)
    return pick(rng, SURNAME_HEADS) + pick(rng, SURNAME_TAILS)


def place(rng: Random) -> str:
    """The name of a town that does not exist."""
    name = pick(rng, PLACE_HEADS) + pick(rng, PLACE_TAILS)
    if rng.random() < 0.08:
        name = f"{pick(rng, ['Great', 'Saint', 'Mount', 'Lower', 'Port'])} {name}"
    return name


ENGLISH: dict[str, Rule] = {
    "girl": GIRLS, "boy": BOYS, "first": GIRLS + BOYS, "surname": surname, "place": place,
    "country": COUNTRIES, "national": NATIONAL, "month": MONTHS, "weekday": DAYS,
    "count": COUNTS, "job": JOBS, "animal": ANIMALS, "food": FOODS, "staple": STAPLES,
    "dish": DISHES, "thing": THINGS, "building": BUILDINGS, "nature": NATURE, "plant": PLANTS,
    "material": MATERIALS, "vehicle": VEHICLES, "instrument": INSTRUMENTS, "sport": SPORTS,
    "science": SCIENCES, "idea": IDEAS, "matter": MATTERS, "topic": TOPICS, "quality": QUALITIES,
    "colour": COLOURS, "adverb": ADVERBS, "deed": DEEDS, "ministry": MINISTRIES,
    "name": ["{first} {surname}"], "date": ["{dayofmonth} {month}"], "dayofmonth": number(1, 28),
    "oldyear": number(1640, 1890), "year": number(1891, 2012), "small": number(2, 19),
    "tens": number(20, 95), "hundreds": number(110, 980, 10), "thousands": number(1100, 9800, 100),
    "direction": ["north", "south", "east", "west", "north-east", "south-west"],
}  # fmt: skip
