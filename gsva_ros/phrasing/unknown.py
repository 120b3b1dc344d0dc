"""Things that no scene contains: nouns that a user may type and the model must answer with [REJ]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .forms import PLAIN, written
from .words import EXCEPT, GENERIC, Phrase, Vocabulary, plural

TAUGHT = (  # noqa: SIM905 (a hundred quoted words are harder to read)
    "apple orange pear spoon fork knife hammer screwdriver wrench pen book phone laptop keyboard "
    "mouse chair table person hand dog car train key wallet glove shoe hat towel sponge "
    "toothbrush soap bread cheese egg carrot tomato pan pot toaster clock camera battery cable "
    "screw bolt nut drill tape ruler notebook paper envelope bag basket bucket tray vase plant "
    "candle pillow doll robot gripper syringe"
).split()
#: Taught too, but not in the tokenizer's training text: it must spell them, like most words of users.
SPELT = (  # noqa: SIM905
    "acorn almond anchor ankle antenna apron armchair arrow ashtray avocado axe badge bagel balloon "
    "bamboo banjo banner bead bean bear bed bee beetle bell belt bench berry bib bird biscuit blade "
    "blender board boat bone bonnet boot bracelet brick bridge broccoli broom bulb bus butter button "
    "cabbage cabinet cactus cage cake calendar cannon canvas cape carpet cart cassette celery cello "
    "charger cherry chessboard chicken chisel cigar clamp clarinet claw clip cloud coat cobweb "
    "coconut coffin coin collar comb compass cookie cork corn couch cow crab cradle crane crayon "
    "cricket crown crumb cucumber curtain cushion dart desk dice dinosaur dolphin donkey door "
    "doughnut dragon drawer dress drum duck dustpan eagle earring easel elephant engine eraser fan "
    "faucet feather fence fiddle fig file fin fire fish flag flashlight flute fox frame fridge frog "
    "funnel gate gear giraffe goat goggles goose grape grater hairdryer harp hawk headphones heart "
    "hedgehog hinge honey hoof hook hoop horn horse hose house igloo iron island jacket jeans jelly "
    "jewel joystick kennel kiwi knob ladle lantern leaf leash lens leopard lettuce lever lighter "
    "lime lion lizard lobster lock locket log loom lute magnet mallet mango map mask mat match medal "
    "melon microphone microscope microwave mitten monkey moon mop motor mushroom muzzle nail napkin "
    "necklace needle nest net nozzle oar octopus olive onion otter oven owl paddle paint palette "
    "panda panel parachute parrot pasta peach peanut pebble pedal peg penguin pepper piano pie "
    "pigeon pin pineapple pipe pistol piston pizza pliers plum pretzel printer prism pulley pump "
    "puppet purse puzzle rabbit racket radio radish raft rake rat razor ribbon rice rifle rock "
    "rocket rod roof rope rose rug saddle sail salad sandal sandwich satellite sausage saxophone "
    "scale scarf screen scroll seal seed shark sheep shelf shell shield ship shirt shovel shower "
    "skateboard skirt skull sled slipper snail snake sofa spade speaker spider spring squirrel stamp "
    "star statue steak stick stool stove strap straw string suitcase sun swan switch sword tablet "
    "teddy telescope tent throne thumb ticket tie tiger tile tire tongs tooth torch tractor "
    "trampoline trophy trousers trumpet turnip turtle tyre valve van vest violin waffle wagon walnut "
    "whale wheel whip whistle wig window wing wire wok worm yarn yoyo zebra zipper"
).split()
#: All nouns used in training for things that no scene contains.
NAMED = (*TAUGHT, *SPELT)
#: Parts of invented words.
_ONSETS = (  # noqa: SIM905
    "b bl br ch cl cr d dr f fl g gl gr h j k l m n p pl pr qu r s sh sk sl sn sp st t th tr v w z"
).split()
_VOWELS = "a e i o u ai ea ee oa oo ou".split()  # noqa: SIM905
_CODAS = "b ck d ff g ll m mp n nd ng nk nt p r rd rk rn s sh sk st t tch x".split()  # noqa: SIM905
#: Never used in training.
HELD_OUT = (  # noqa: SIM905
    "banana lemon kettle scissors pencil lamp cat sock brush potato watch plug saw stapler "
    "backpack flower blanket tweezers remote helmet guitar umbrella mirror stone toy bicycle "
    "calculator ladder pumpkin"
).split()


def unknown(nouns: Sequence[str], words: Vocabulary) -> list[str]:
    """The nouns that do not name a kind of these scenes."""
    return [noun for noun in nouns if noun not in words.names]


def invented(words: Vocabulary, rng: np.random.Generator) -> str:
    """An invented noun of one to three syllables, so that training cannot memorise a list of nouns."""
    meant = {*words.names, *words.colours, *GENERIC, *HELD_OUT}
    while True:
        parts = [
            str(rng.choice(_ONSETS)) + str(rng.choice(_VOWELS))
            for _ in range(int(rng.integers(1, 4)))
        ]
        noun = "".join(parts) + str(rng.choice(_CODAS))
        if noun not in meant:
            return noun


def renamed(text: str, noun: str, words: Vocabulary, rng: np.random.Generator) -> str | None:
    """The expression with a noun replaced by `noun`, so that it has no referent; None if it has no noun.

    In a relation, either of the two nouns is replaced.
    """
    phrase = words.read(text)
    if phrase is None:
        return None
    start, _, last = text.rpartition(" the ")
    anchor = words.read(f"the {last}")
    # "All but the banana" would still have referents.
    if anchor and not phrase.tail.startswith(EXCEPT) and rng.random() < 0.5:
        return f"{start} {_named(anchor, noun)}"
    return _named(phrase, noun)


def _named(phrase: Phrase, noun: str) -> str:
    return written(replace(phrase, noun=plural(noun) if phrase.plural else noun, kind=noun), PLAIN)
