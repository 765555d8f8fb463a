"""The order of mixed text, against the Unicode-conforming `unicode-bidi` that python-bidi wraps."""

from bidi import get_display
from hypothesis import given
from hypothesis import strategies as st

from fisa.processing.text_direction import embedding_levels, visual_order


CHARACTERS = "ab猫é אבقط 12٣٤ ,.-+%$()[]"


@given(st.text(CHARACTERS, max_size=12))
def test_order_is_that_of_the_unicode_algorithm(text):
    text = text.strip()
    assert "".join(text[place] for place in visual_order(embedding_levels(text))) == get_display(text)


def test_marks_run_as_what_they_stand_on():
    assert embedding_levels("aא\u05b8") == [0, 1, 1]
