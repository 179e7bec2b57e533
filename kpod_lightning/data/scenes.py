"""Wordings of the generated word problems: scenes, people, distractors, and other ways to say a calculation."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One family of wording.

    Placeholders: {n} the name, {P} and {p} the pronoun, {r} and {r_cap} its possessive, {r_obj} its object
    form, {o} the objects, {k} the number of a clause, {g} how many groups of it, {e} the expression. A clause
    is what the question says and what the rationale says; ``group`` has two sentences there, for two steps.
    """

    objects: tuple[str, ...]
    start: tuple[str, ...]
    opening: tuple[str, ...]
    clauses: dict[str, tuple[tuple[str, ...], ...]]
    ask: tuple[str, ...]


_SHARE = (
    ("{P} shares all of them equally among {k} bags and keeps one bag.", "One bag of {k} holds {e} {o}."),
    ("Then {p} splits them into {k} equal parts and keeps one part.", "One part of {k} is {e} {o}."),
)

SCENES: tuple[Scene, ...] = (
    Scene(  # shopping
        objects=("apples", "pears", "lemons", "onions", "eggs", "plums"),
        start=(
            "{n} has {k} {o} in {r} basket.",
            "{n} goes to the market with {k} {o}.",
            "{n} starts with {k} {o}.",
        ),
        opening=("{n} starts with {k} {o}.", "At first {n} has {k} {o}."),
        clauses={
            "+": (
                ("{P} buys {k} more.", "{P} buys {k} more, so {p} has {e} {o}."),
                ("The seller adds {k} for free.", "With the {k} free ones {p} has {e} {o}."),
                ("At a second stall {p} picks up another {k}.", "The second stall makes it {e} {o}."),
            ),
            "-": (
                ("{P} gives {k} to a neighbour.", "After giving {k} away {p} has {e} {o}."),
                ("On the way home {p} drops {k}.", "{P} drops {k}, which leaves {e} {o}."),
                ("{k} of them turn out to be bad.", "Without the {k} bad ones there are {e} {o}."),
            ),
            "*": (
                (
                    "Then {p} comes back and leaves with {k} times as many.",
                    "{k} times as many makes {e} {o}.",
                ),
                ("Soon {p} has {k} times that number.", "{P} then has {k} times that, so {e} {o}."),
            ),
            "/": _SHARE,
            "group": (
                (
                    "{P} also buys {g} boxes with {k} {o} each.",
                    "The {g} boxes hold {e} {o}.",
                    "So {p} now has {e} {o}.",
                ),
            ),
        },
        ask=("How many {o} does {n} have now?", "How many {o} are there in the end?"),
    ),
    Scene(  # collecting
        objects=("stamps", "shells", "cards", "coins", "stickers", "marbles"),
        start=("{n} collects {o} and owns {k}.", "In {r} album {n} keeps {k} {o}.", "{n} has found {k} {o}."),
        opening=("The collection begins with {k} {o}.", "{n} owns {k} {o}."),
        clauses={
            "+": (
                ("An uncle sends {k} new ones.", "With {k} from the uncle it is {e} {o}."),
                ("At the beach {p} finds {k} more.", "Finding {k} more makes {e} {o}."),
                ("{P} wins {k} in a game.", "{P} wins {k}, so {p} owns {e} {o}."),
            ),
            "-": (
                ("{P} trades {k} of them away.", "After trading {k} away {p} owns {e} {o}."),
                ("{r_cap} brother takes {k}.", "The brother takes {k}, leaving {e} {o}."),
                ("{P} loses {k} at school.", "{P} loses {k} and has {e} {o} left."),
            ),
            "*": (
                ("A year later the collection is {k} times as large.", "{k} times as large means {e} {o}."),
                ("{P} swaps each one for {k} smaller ones.", "{k} for each one gives {e} {o}."),
            ),
            "/": (
                (
                    "{P} puts them on {k} equal pages and gives away all pages but one.",
                    "One page of {k} has {e} {o}.",
                ),
                *_SHARE[1:],
            ),
            "group": (
                (
                    "{P} opens {g} packs with {k} {o} in each.",
                    "The {g} packs give {e} {o}.",
                    "Together that is {e} {o}.",
                ),
            ),
        },
        ask=("How many {o} are in the collection now?", "How many {o} does {n} own at the end?"),
    ),
    Scene(  # baking
        objects=("cookies", "muffins", "rolls", "pies", "buns", "waffles"),
        start=(
            "{n} bakes {k} {o}.",
            "In the morning {n} takes {k} {o} out of the oven.",
            "{n} has {k} {o} on a tray.",
        ),
        opening=("{n} first has {k} {o}.", "There are {k} {o} to begin with."),
        clauses={
            "+": (
                ("{P} bakes another {k}.", "Another {k} brings it to {e} {o}."),
                ("A friend brings {k} more.", "The friend's {k} make it {e} {o}."),
                ("{P} finds {k} in the freezer.", "With {k} from the freezer there are {e} {o}."),
            ),
            "-": (
                ("{P} burns {k}.", "Burning {k} leaves {e} {o}."),
                ("The guests eat {k} of them.", "The guests eat {k}, so {e} {o} are left."),
                ("{P} sells {k} at the fair.", "After selling {k} there are {e} {o}."),
            ),
            "*": (
                ("For a party {p} makes the number {k} times as large.", "{k} times the number is {e} {o}."),
                ("Cutting turns each one into {k} small ones.", "Cutting each into {k} gives {e} {o}."),
            ),
            "/": (
                (
                    "{P} lays them on {k} equal plates and keeps a single plate.",
                    "A single plate of {k} has {e} {o}.",
                ),
                *_SHARE[:1],
            ),
            "group": (
                (
                    "{P} adds {g} trays of {k} {o}.",
                    "The {g} trays hold {e} {o}.",
                    "In all there are {e} {o}.",
                ),
            ),
        },
        ask=("How many {o} are left?", "How many {o} does {n} have in the end?"),
    ),
    Scene(  # saving
        objects=("dollars", "euros", "pounds"),
        start=(
            "{n} has saved {k} {o}.",
            "{n} keeps {k} {o} in a jar.",
            "There are {k} {o} in the purse of {n}.",
        ),
        opening=("{n} begins with {k} {o}.", "The savings begin at {k} {o}."),
        clauses={
            "+": (
                ("{P} earns {k} by washing cars.", "Earning {k} makes {e} {o}."),
                ("For {r} birthday {p} gets {k}.", "The birthday adds {k}, so it is {e} {o}."),
                ("{P} finds {k} in an old coat.", "With the {k} from the coat {p} has {e} {o}."),
            ),
            "-": (
                ("{P} spends {k} on a book.", "The book costs {k}, so {e} {o} remain."),
                ("{P} lends {k} to a friend.", "Lending {k} leaves {e} {o}."),
                ("A ticket costs {r_obj} {k}.", "After the ticket for {k} {p} has {e} {o}."),
            ),
            "*": (
                ("By summer the savings are {k} times as much.", "{k} times as much is {e} {o}."),
                ("A grandmother makes it {k} times that amount.", "{k} times that amount is {e} {o}."),
            ),
            "/": (
                ("{P} shares the money equally with {r} family of {k}.", "Shared by {k} it is {e} {o} each."),
                ("{P} keeps only one of {k} equal parts.", "One of {k} equal parts is {e} {o}."),
            ),
            "group": (
                (
                    "{P} works {g} days for {k} {o} a day.",
                    "The {g} days pay {e} {o}.",
                    "So {p} holds {e} {o}.",
                ),
            ),
        },
        ask=("How many {o} does {n} have now?", "How much money is left, in {o}?"),
    ),
    Scene(  # travel
        objects=("miles", "kilometres"),
        start=(
            "{n} plans a trip of {k} {o}.",
            "The route of {n} is {k} {o} long.",
            "On a map {n} measures {k} {o}.",
        ),
        opening=("The trip is {k} {o} at first.", "The plan says {k} {o}."),
        clauses={
            "+": (
                ("A detour adds {k}.", "The detour of {k} makes {e} {o}."),
                ("{P} extends it by {k} to see a lake.", "With {k} for the lake it is {e} {o}."),
                ("A closed road costs {k} more.", "The closed road adds {k}, giving {e} {o}."),
            ),
            "-": (
                ("A new bridge saves {k}.", "The bridge saves {k}, so it is {e} {o}."),
                ("{P} takes a bus for {k} of it.", "Without the {k} by bus there are {e} {o}."),
                ("{P} leaves out a stretch of {k}.", "Leaving out {k} gives {e} {o}."),
            ),
            "*": (
                ("{P} does the whole way {k} times.", "Going {k} times is {e} {o}."),
                ("The final plan is {k} times as long.", "{k} times as long is {e} {o}."),
            ),
            "/": (
                ("{P} spreads it over {k} equal days and looks at one day.", "One day of {k} has {e} {o}."),
                ("{P} runs it as a relay with {k} equal legs, one for each.", "One leg of {k} is {e} {o}."),
            ),
            "group": (("{P} adds {g} loops of {k} {o}.", "The {g} loops are {e} {o}.", "The total is {e} {o}."),),
        },
        ask=("How many {o} is that for {n}?", "How many {o} does {n} travel?"),
    ),
    Scene(  # library and school
        objects=("books", "pencils", "chairs", "boxes", "papers", "maps"),
        start=(
            "{n} counts {k} {o} in the room.",
            "A shelf that {n} looks after holds {k} {o}.",
            "{n} stores {k} {o}.",
        ),
        opening=("The room first has {k} {o}.", "The count starts at {k} {o}."),
        clauses={
            "+": (
                ("A van delivers {k} more.", "The van brings {k}, so there are {e} {o}."),
                ("The class next door hands over {k}.", "With {k} from next door it is {e} {o}."),
                ("{P} repairs {k} broken ones.", "Repairing {k} gives {e} {o}."),
            ),
            "-": (
                ("Pupils borrow {k}.", "Pupils borrow {k}, which leaves {e} {o}."),
                ("{P} throws out {k} old ones.", "Without {k} old ones there are {e} {o}."),
                ("{k} go to another school.", "After {k} go away {e} {o} stay."),
            ),
            "*": (
                ("After a gift there are {k} times as many.", "A gift to {k} times as many is {e} {o}."),
                ("{P} needs {k} times that many for a feast.", "{k} times that many is {e} {o}."),
            ),
            "/": (
                ("{P} moves them to {k} equal rooms and counts one room.", "One room of {k} has {e} {o}."),
                (
                    "They are dealt out to {k} equal teams, and {n} sees one team.",
                    "One team of {k} gets {e} {o}.",
                ),
            ),
            "group": (
                (
                    "{P} fetches {g} crates of {k} {o}.",
                    "The {g} crates hold {e} {o}.",
                    "Now there are {e} {o}.",
                ),
            ),
        },
        ask=("How many {o} are there now?", "How many {o} does {n} count in the end?"),
    ),
)

OOD_SCENES: tuple[Scene, ...] = (
    Scene(  # farm
        objects=("goats", "ducks", "sheep"),
        start=("A herd kept by {n} numbers {k} {o}.", "Farmer {n} looks over {k} {o}."),
        opening=("The herd numbers {k} {o} before anything happens.",),
        clauses={
            "+": (
                ("During spring {k} young are born.", "Births raise the herd by {k}: {e} {o}."),
                ("An auction brings in a further {k}.", "Counting {k} from the auction we get {e} {o}."),
            ),
            "-": (
                ("A storm scatters {k}.", "Taking off {k} for the storm, {e} {o} remain."),
                ("{k} are sold to a dairy.", "The dairy gets {k}; the herd is {e} {o}."),
            ),
            "*": (
                (
                    "Joining the valley herds multiplies the size by {k}.",
                    "Multiplying by {k} we get {e} {o}.",
                ),
            ),
            "/": (("Only one of {k} equally large pastures stays open.", "Each of {k} pastures feeds {e} {o}."),),
            "group": (
                (
                    "Besides, {g} barns hold {k} {o} apiece.",
                    "In {g} barns we find {e} {o}.",
                    "Including the barns, the herd is {e} {o}.",
                ),
            ),
        },
        ask=("What is the size of the herd?", "Of how many {o} does the herd consist?"),
    ),
    Scene(  # harbour
        objects=("barrels", "crates", "containers"),
        start=("Captain {n} sails with {k} {o} aboard.", "A ship under {n} carries {k} {o}."),
        opening=("The ship sets out with {k} {o} aboard.",),
        clauses={
            "+": (
                ("In one harbour {k} are loaded.", "Loading {k} the ship carries {e} {o}."),
                ("Sailors rescue {k} from a wreck.", "The wreck yields {k}, hence {e} {o}."),
            ),
            "-": (
                ("Heavy waves wash {k} overboard.", "Waves take {k}, hence {e} {o}."),
                ("Customs officers seize {k}.", "Customs seize {k}; aboard are {e} {o}."),
            ),
            "*": (("A convoy of {k} such ships gathers.", "A convoy of {k} ships carries {e} {o}."),),
            "/": (
                (
                    "The cargo is divided evenly between {k} docks; consider one.",
                    "Each dock of {k} takes {e} {o}.",
                ),
            ),
            "group": (
                (
                    "Moreover {g} rafts with {k} {o} apiece are towed.",
                    "On {g} rafts are {e} {o}.",
                    "Ship and rafts carry {e} {o}.",
                ),
            ),
        },
        ask=("What does the cargo amount to, in {o}?", "With how many {o} does the voyage end?"),
    ),
)

# Sentences whose numbers do not matter; their full stops are not all ends of sentences.
DISTRACTORS = (
    "{n} is {a} years old.",
    "It is {a} May.",
    "{n} lives on floor {a}.",
    "It is {h}.{m} a.m. on a Monday.",
    "Bus No. {a} costs ${h}.50.",
    "The walk takes approx. {a} minutes.",
    "A sign says No. {a}.",
    "It is {h}.5 degrees outside.",
)

OOD_DISTRACTORS = ("The year is 19{m}.", "A radio plays channel {a}.", "The wind blows at {h}.{m} knots.")

PEOPLE = tuple(
    (name, "she") for name in ("Mia", "Anna", "Zoe", "Ruth", "Mrs. Diaz", "Dr. Shah", "Lily", "Ms. Cole")
) + tuple((name, "he") for name in ("Ben", "Tom", "Omar", "Leo", "Mr. Lee", "Dr. Ito", "Sam", "Mr. Novak"))

POSSESSIVE = {"she": "her", "he": "his"}

OBJECT = {"she": "her", "he": "him"}

# Beginnings of steps: numbers and full stops that belong to no calculation.
LEADS = (
    ("First, ", "Then, ", "Next, ", "After that, ", "Later, "),
    ("Step 1: ", "Step 2: ", "Step 3: ", "Step 4: ", "Step 5: "),
    ("By approx. 9.30 a.m. ", "At 10.15 a.m. ", "At 2.45 p.m. ", "At 4.30 p.m. ", "At 6.5 o'clock "),
)

ASIDES = (
    "The ${h}.50 for the bus does not matter.",
    "The age of {n} does not matter.",
    "The sign No. {a} does not matter.",
)

WORDINGS = "wordings-1"
"""Name of how further rationales are written: others would be another selection of the same problems."""

# What the sentence of any scene may be replaced by in a further rationale; "sum" is the second one of a group.
OTHER_WORDS: dict[str, tuple[str, ...]] = {
    "+": ("Adding {k} gives {e} {o}.", "The number of {o} grows by {k} to {e}.", "We add {k} and get {e}."),
    "-": ("Subtracting {k} gives {e} {o}.", "The number of {o} falls by {k} to {e}.", "We take {k} off and get {e}."),
    "*": ("Multiplying by {k} gives {e} {o}.", "There are {k} times as many {o}: {e}.", "We take it {k} times: {e}."),
    "/": ("Dividing by {k} gives {e} {o}.", "Each of {k} equal parts is {e} {o}.", "We divide by {k} and get {e}."),
    "group": ("{g} times {k} {o} are {e}.", "There are {g} with {k} {o} each: {e}.", "All {g} together are {e} {o}."),
    "sum": ("Adding them gives {e} {o}.", "With these the number of {o} is {e}.", "In total we get {e}."),
}

OTHER_OPENINGS = ("We know that there are {k} {o} to begin with.", "For {n} it begins with {k} {o}.")
