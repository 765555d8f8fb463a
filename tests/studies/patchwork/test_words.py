"""What other words mean Patchwork's."""

from fisa.processing.others import competing
from fisa.processing.vocabulary import Class, Vocabulary
from fisa.studies.patchwork.words import MEANINGS, WORDS, covered, vocabulary


def test_other_words_cover_words_of_patchwork():
    own = {word.name for word in WORDS}
    assert set(MEANINGS) == {"wider", "same", "plural", "spelling"}
    for words in MEANINGS.values():
        for word, covers in words.items():
            assert covers and covers <= own, word
    assert covered("dog") == {"dog", "poodle"} and covered("poodle") == {"poodle"}
    assert {"dog", "poodle", "tropical fish"} <= MEANINGS["wider"]["animal"]


def test_meaning_finds_what_the_table_says():
    # By hand against by WordNet: what speaks for a word is what the table says that it covers.
    own = {name: word.name for word in WORDS for name in (word.name, *word.synonyms)}
    right = missing = wrong = 0
    for words in MEANINGS.values():
        for word, covers in words.items():
            competition = competing(Vocabulary([Class(word)]), vocabulary())
            found = {own[name] for name in competition.voices[0]} | ({word} & own.keys())
            right, missing, wrong = (
                right + len(found & covers),
                missing + len(covers - found),
                wrong + len(found - covers),
            )
    assert missing <= 0.03 * (right + missing) and wrong <= 0.07 * (right + wrong), (right, missing, wrong)
