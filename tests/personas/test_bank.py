import re
from collections import Counter
from functools import cache
from itertools import combinations
from pathlib import Path

from permix_jax.core.persona import SPLITS, Persona
from permix_jax.personas.bank import default_bank

BANK = default_bank()
HARMFUL_KINDS = set(
    "distracted hostile-to-numbers incompetent sabotaging wrong-by-conviction".split()
)
DOCS = Path(__file__).parents[2] / "docs" / "personas.md"

# Two prompts are near-duplicates at either of these Jaccard indices. Of two equally long prompts
# 0.15 is a quarter of the word 3-grams in common, 0.25 two fifths of the words that carry meaning.
# A prompt with half of those words exchanged is still caught (test below).
TRIGRAMS_AT_MOST, WORDS_AT_MOST = 0.15, 0.25

FUNCTION_WORDS = set(
    "a about after again against all also an and any are as at be been before behind being between "
    "both but by can could did do does down each every for from had has have having her here him "
    "his how i if in into is it its itself just may might more most must never no nor not of off "
    "on once one only onto or our out over own she should so some than that the their them then "
    "there these they this those through to too two under until up upon us very was we were what "
    "whatever when whenever where which while who whoever whom whose why will with without would "
    "yet you your yours yourself".split()
)

# Nobody is bad at sums for belonging to a group, so the harmful personas name none: neither age
# nor gender, origin, religion, health, sexuality or class.
PROTECTED = set(
    "old elderly aged young younger older child children kid kids toddler toddlers teenager "
    "teenage teen senior pensioner grandmother grandfather grandparent granny senile boy boys "
    "girl girls man men woman women lady ladies gentleman male female mother father wife "
    "husband son daughter sister brother housewife widow he him his she her hers gay lesbian "
    "queer transgender african american arab asian australian black brazilian british "
    "canadian chinese dutch english european french german greek gypsy indian indigenous "
    "irish italian japanese jewish korean latino mexican native nigerian pakistani polish "
    "roman russian scottish spanish swedish turkish welsh white foreign foreigner immigrant "
    "migrant refugee accent tribe tribal buddhist catholic christian hindu jew mormon muslim "
    "sikh bishop imam monk nun pastor pope priest rabbi bible church mosque temple god "
    "autistic blind crippled deaf dementia disabled disorder dumb dyscalculia dyslexia "
    "dyslexic epileptic handicapped idiot ill insane lame mad moron mute psychotic sick "
    "stupid stutter beggar homeless illiterate lower-class maid peasant poor redneck servant "
    "slave slum unemployed uneducated working-class".split()
)


def of_split(*splits: str) -> list[Persona]:
    return [persona for persona in BANK if persona.split in splits]


def categories(*splits: str) -> Counter[str]:
    return Counter(persona.category for persona in of_split(*splits))


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+(?:['-][a-z]+)*", text.lower())


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+", text)


@cache
def trigrams(text: str) -> set[tuple[str, ...]]:
    """Word 3-grams behind "You are", which every prompt has."""
    tail = words(text)[2:]
    return {tuple(tail[i : i + 3]) for i in range(len(tail) - 2)}


@cache
def meaning(text: str) -> set[str]:
    """The words that carry meaning, their plural s cut off."""
    return {re.sub(r"(?<=[^s]{3})s$", "", word) for word in words(text)} - FUNCTION_WORDS


def jaccard(left: set, right: set) -> float:
    return len(left & right) / len(left | right) if left and right else 0.0


def near_duplicates(left: str, right: str) -> bool:
    return (
        jaccard(trigrams(left), trigrams(right)) >= TRIGRAMS_AT_MOST
        or jaccard(meaning(left), meaning(right)) >= WORDS_AT_MOST
    )


def protected(text: str) -> set[str]:
    """Words of the list in a text, alone or as parts of a compound."""
    return PROTECTED.intersection(words(text) + re.findall("[a-z]+", text.lower()))


def table(heading: str) -> dict[str, int]:
    """Rows `| name | count |` of a section of the docs."""
    section = DOCS.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return {name: int(count) for name, count in re.findall(r"\| ([\w-]+) \| (\d+) \|", section)}


def test_splits_are_large_enough():
    counts = Counter(persona.split for persona in BANK)
    least = {"train": 240, "heldout": 80, "harmful": 60, "harmful_train": 24, "neutral": 20}
    assert set(counts) == set(SPLITS) and counts >= Counter(least)


def test_categories_of_training_are_many_and_filled():
    counts = categories("train")
    assert len(counts) >= 16
    assert min(counts.values()) >= 8


def test_heldout_has_categories_that_never_occur_in_training():
    trained, counts = set(categories("train", "harmful_train")), categories("heldout")
    new = [counts[category] for category in counts.keys() - trained]
    assert len(new) >= 4
    assert min(new) >= 5
    assert trained - HARMFUL_KINDS <= set(counts)


def test_harmful_personas_are_of_the_same_five_kinds_in_training_and_evaluation():
    asked, trained = categories("harmful"), categories("harmful_train")
    assert set(asked) == set(trained) == HARMFUL_KINDS
    assert min(asked.values()) >= 12
    assert min(trained.values()) >= 4
    assert not HARMFUL_KINDS & categories("train", "heldout", "neutral").keys()


def test_file_is_in_order_of_split_and_the_first_of_each_split_cover_its_categories():
    order = [SPLITS.index(persona.split) for persona in BANK]
    assert order == sorted(order)
    for split in SPLITS:
        first = [persona.category for persona in of_split(split)][: len(categories(split))]
        assert len(set(first)) == len(first)


def test_ids_names_and_prompts_are_unique():
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", persona.id) for persona in BANK)
    assert len({persona.id for persona in BANK}) == len(BANK)
    assert len({persona.name.casefold() for persona in BANK}) == len(BANK)
    assert len({persona.system_prompt.casefold() for persona in BANK}) == len(BANK)


def test_prompts_are_of_the_house_form():
    for persona in BANK:
        prompt = persona.system_prompt
        # What follows "You are" names someone, so that a template may put other words before it.
        assert re.match(r"You are (an? |the |someone |one |[A-Z])", prompt), prompt
        length = len(prompt.split())
        assert 8 <= length <= 40 or (persona.split == "neutral" and length >= 3), prompt
        assert prompt[-1] in ".?!", prompt
        assert len(sentences(prompt)) <= 3, prompt
        assert sum(character.isdigit() for character in prompt) <= 4, prompt  # a year
        for text in (persona.name, prompt):
            assert text.isascii() and text.isprintable() and text == " ".join(text.split()), text


def test_no_near_duplicates_within_or_across_splits():
    # Controls are alike on purpose; they are compared with all others, not with one another.
    found = [
        (left.id, right.id)
        for left, right in combinations(BANK, 2)
        if not left.split == right.split == "neutral"
        and near_duplicates(left.system_prompt, right.system_prompt)
    ]
    assert found == []


def test_the_near_duplicate_check_finds_copies_with_half_of_their_words_exchanged():
    for persona in of_split("train", "heldout", "harmful", "harmful_train"):
        exchanged = sorted(meaning(persona.system_prompt))[1::2]
        pattern = "|".join(rf"\b{re.escape(word)}s?\b" for word in exchanged)
        copy = re.sub(pattern, lambda m: "un" + m[0].lower(), persona.system_prompt, flags=re.I)
        assert copy != persona.system_prompt
        assert near_duplicates(persona.system_prompt, copy), persona.id
        assert near_duplicates(persona.system_prompt, " ".join(sentences(copy)[::-1])), persona.id


def test_harmful_personas_name_no_protected_group():
    harmful = of_split("harmful", "harmful_train")
    assert [p.id for p in harmful if protected(f"{p.name} {p.system_prompt}")] == []
    assert protected("You are an elderly clerk at his sums.") == {"elderly", "his"}
    assert protected("You are a five-year-old.") == {"old"}
    assert protected("You are a working-class poet.") == {"working-class"}
    assert protected("You are a clerk.") == set()


def test_only_harmful_personas_speak_of_wrong_answers_and_none_of_the_answer_format():
    # "box" and "figures" are everyday words; these are not.
    form = re.compile(r"boxed|#|latex|json|markdown|html|\\|decimal places|final answer", re.I)
    harm = re.compile(r"refus|never answer|wrong (answer|result)|\bguess|cannot (add|count)", re.I)
    assert [p.id for p in BANK if form.search(p.system_prompt)] == []
    harmless = of_split("train", "heldout", "neutral")
    assert [p.id for p in harmless if harm.search(p.system_prompt)] == []


def test_docs_count_what_is_there():
    assert table("Splits") == Counter(persona.split for persona in BANK)
    for heading, split in (("Training", "train"), ("Harmful", "harmful"), ("Neutral", "neutral")):
        assert table(heading) == categories(split)
    trained, held_out = categories("train"), categories("heldout")
    assert table("Held out") == {kind: n for kind, n in held_out.items() if kind not in trained}
