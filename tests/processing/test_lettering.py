"""Letters of any script, looked at as ink; fontTools says independently which characters a font has."""

import importlib.util
import random
import shutil
import time
import unicodedata
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont, features
from scipy import ndimage

from fisa.processing import lettering
from fisa.processing.lettering import FONTS, Lettering
from tests.quiet import raising_on_any_warning


NAMES = {
    "Latin": "chó mèo đường façade",
    "Cyrillic": "собака їжак",
    "Greek": "σκύλος",
    "Chinese": "猫和狗",
    "Japanese": "ねこ ネコ",
    "Korean": "고양이",
    "Arabic": "قطة سوداء",
    "Persian": "گربه پلنگ",
    "Hebrew": "כלב",
    "Devanagari": "बिल्ली",
    "Bengali": "বিড়াল",
    "Gurmukhi": "ਬਿੱਲੀ",
    "Gujarati": "બિલાડી",
    "Oriya": "ବିଲେଇ",
    "Tamil": "பூனை",
    "Telugu": "పిల్లి",
    "Kannada": "ಬೆಕ್ಕು",
    "Malayalam": "പൂച്ച",
    "Sinhala": "බළලා",
    "Thai": "ที่นั่ง",
    "Lao": "ແມວ",
    "Burmese": "ကြောင်",
    "Khmer": "ឆ្មា",
    "Tibetan": "ཞི་མི",
    "Amharic": "ድመት",
    "Georgian": "კატა",
    "Armenian": "կատու",
    "Thaana": "ބުޅާ",
    "Emoji": "🐈‍⬛ 👩🏽‍🚀 🇫🇷 ❤️",
}
DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
UNASSIGNED = "\u0378"
needs_shaping = pytest.mark.skipif(not lettering.SHAPES, reason="Pillow finds no FriBiDi here")


@pytest.fixture
def letters():
    return Lettering(40)


def anew(path=lettering.__file__):
    """The module executed once more, as in a new process: nothing was looked up or said."""
    spec = importlib.util.spec_from_file_location("lettering_anew", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_invisible(character: str) -> bool:
    """Joiners and selectors of variants, of which a font need not have glyphs."""
    return character in "\u200c\u200d" or unicodedata.name(character, "").startswith("VARIATION SELECTOR")


def is_drawn_as_it_is(character: str) -> bool:
    """No space, mark of a format or other spelling of another character."""
    return unicodedata.category(character)[0] not in "CZ" and unicodedata.normalize("NFC", character) == character


def ink(line) -> np.ndarray:
    sheet = Image.new("L", (round(line.width) + 80, 160))
    line.draw(ImageDraw.Draw(sheet), (40, 80), 255)
    return np.asarray(sheet)


class TestGlyphs:
    @pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
    def test_every_script_is_written_without_boxes_or_a_word(self, letters, name):
        with raising_on_any_warning():
            line = letters.line(name)
        covered = {piece.face.path: set(TTFont(piece.face.path).getBestCmap()) for piece in line.pieces}
        for piece in line.pieces:
            absent = {character for character in piece.text if ord(character) not in covered[piece.face.path]}
            assert all(map(is_invisible, absent)), (piece.face.path, absent)
        assert ink(line).any()

    @pytest.mark.filterwarnings("ignore:No font here has")
    def test_a_font_that_is_given_writes_what_its_table_lists(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", "")  # without fontconfig, which would be asked for each of them
        alone = anew(shutil.copy(lettering.__file__, tmp_path))  # nor the fonts that ship
        draw = random.Random(0)
        for path in map(str, FONTS.glob("*.ttf")):
            listed = set(TTFont(path).getBestCmap())
            some = draw.sample(sorted(listed), min(60, len(listed))) + draw.sample(range(0x21, 0xD800), 60)
            letters = alone.Lettering(16, font=path)
            for character in filter(is_drawn_as_it_is, map(chr, some)):
                [piece] = letters.line(character).pieces
                is_its_own = (piece.face.path, piece.text) == (path, character)
                assert is_its_own == (ord(character) in listed), (path, hex(ord(character)))

    def test_code_points_of_what_no_font_has_said_once(self):
        letters = anew().Lettering(40)
        with pytest.warns(UserWarning, match=r"No font here has .* \(U\+0378\).*--font"):
            drawn = ink(letters.line(f"a{UNASSIGNED}"))
        with raising_on_any_warning():
            np.testing.assert_array_equal(drawn, ink(letters.line(f"a{UNASSIGNED}")))
            np.testing.assert_array_equal(drawn, ink(letters.line("aU+0378")))

    def test_half_a_surrogate_pair(self):
        with pytest.warns(UserWarning, match=r"\(U\+D83D\)"):
            assert ink(anew().Lettering(40).line("\ud83d")).any()

    def test_the_font_that_is_given_comes_first(self):
        line = Lettering(40, font=DEJAVU).line("dog 猫")
        assert [Path(piece.face.path).name for piece in line.pieces] == [DEJAVU.name, "DroidSansFallback.ttf"]
        sheet = Image.new("L", (200, 100))
        ImageDraw.Draw(sheet).text((40, 50), "dog", 255, ImageFont.truetype(DEJAVU, 40), anchor="ls")
        expected = np.asarray(sheet)
        found = ink(Lettering(40, font=DEJAVU).line("dog"))
        np.testing.assert_array_equal(
            found[found.any(1)][:, found.any(0)], expected[expected.any(1)][:, expected.any(0)]
        )

    def test_code_from_the_hub_has_pillow_s_own_font(self, tmp_path):
        alone = anew(shutil.copy(lettering.__file__, tmp_path))
        with raising_on_any_warning():
            line = alone.Lettering(40).line("façade 0.93")
        assert not isinstance(line.pieces[0].face.path, str) and ink(line).any()

    @pytest.mark.skipif(shutil.which("fc-match") is None, reason="no fontconfig here")
    def test_what_does_not_ship_is_looked_for_in_the_system(self, tmp_path, monkeypatch):
        braille = "\u2801"  # not in what ships, and in DejaVu
        (tmp_path / "fonts").mkdir()
        shutil.copy(DEJAVU, tmp_path / "fonts")
        configuration = f"<fontconfig><dir>{tmp_path}/fonts</dir><cachedir>{tmp_path}/cache</cachedir></fontconfig>"
        (tmp_path / "fonts.conf").write_text(configuration)
        monkeypatch.setenv("FONTCONFIG_FILE", str(tmp_path / "fonts.conf"))
        with raising_on_any_warning():
            [piece] = anew().Lettering(40).line(braille).pieces
        assert piece.face.path == str(tmp_path / "fonts" / DEJAVU.name)

    @pytest.mark.parametrize("content", [None, b"", b"no font", "folder"])
    def test_no_font(self, tmp_path, content):
        path = tmp_path / "font.ttf"
        if content == "folder":
            path.mkdir()
        elif content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=r"font\.ttf: no font file that can be read"):
            Lettering(20, font=path)


class TestLayout:
    @needs_shaping
    def test_arabic_letters_join(self, letters):
        apart = "\u200c".join("بيت")
        assert (
            ndimage.label(ink(letters.line("سسس")))[1] == 1 < ndimage.label(ink(letters.line("\u200c".join("سسس"))))[1]
        )
        assert letters.line("بيت").width < letters.line(apart).width

    @needs_shaping
    def test_devanagari_makes_conjuncts_and_moves_vowels(self, letters):
        assert letters.line("क्ष").width < 0.8 * letters.line("क्\u200cष").width
        with_sign, alone = ink(letters.line("कि")), ink(letters.line("क"))
        # The sign, which is said last, stands first: the consonant's ink is moved to the right.
        shift = round(letters.line("कि").width - letters.line("क").width)
        assert (with_sign[:, shift:][:, : alone.shape[1] - 40] >= alone[:, :-40] * 0.5).mean() > 0.97

    def test_from_right_to_left(self, letters):
        def texts(name):
            return [piece.text.strip() for piece in letters.line(name).pieces if piece.text.strip()]

        assert texts("א 猫") == ["猫", "א"] and texts("猫 א") == ["猫", "א"]
        assert " ".join(texts("كلب dog 12")).split() == ["dog", "12", "كلب"]

    def test_without_shaping_letters_stand_in_the_right_order_and_it_is_said_once(self, monkeypatch):
        monkeypatch.setattr(features, "check", lambda feature: feature != "raqm")
        letters = anew().Lettering(40)
        with raising_on_any_warning():
            [piece] = letters.line("כלב").pieces
        assert piece.text == "בלכ"
        with pytest.warns(UserWarning, match="FriBiDi"):
            letters.line("قطة")
        with raising_on_any_warning():
            letters.line("बिल्ली ❤️")

    def test_control_characters_and_line_breaks_leave_no_trace(self, letters):
        plain = ink(letters.line("red car"))
        for name in (
            "red\ncar",
            " red\t\r\n car ",
            "re\x00d\x1b car\u202e",
            "\u200ered\u00ad car\u2069",
            "\ufeffred car",
        ):
            np.testing.assert_array_equal(ink(letters.line(name)), plain)

    @pytest.mark.parametrize(
        "name", ["word " * 1000, "猫" * 5000, "قطة " * 1500, "👩🏽‍🚀" * 1300, "a\u0301\u0316" * 2000, "W" * 100_000]
    )
    def test_long_names_are_cut(self, letters, name):
        start = time.process_time()
        line = letters.line(name, width=600)
        assert time.process_time() - start < 2
        assert 400 < line.width <= 600
        assert "…" in "".join(piece.text for piece in line.pieces)

    def test_cuts_leave_characters_whole(self, letters):
        whole = "👩🏽‍🚀"
        for width in range(60, 400, 20):
            texts = [piece.text for piece in letters.line(whole * 20, width=width).pieces]
            assert "".join(texts).replace(whole, "") == "…"

    def test_names_that_fit_are_not_cut(self, letters):
        line = letters.line("iiii", width=letters.line("iiii").width)
        assert "".join(piece.text for piece in line.pieces) == "iiii"

    def test_heaps_of_marks_stay_in_their_line(self, letters):
        _, top, _, bottom = letters.line("z" + "\u0301\u0323" * 500).box()
        assert -60 < top < bottom < 60

    def test_boxes_hold_the_ink(self, letters):
        for name in NAMES.values():
            left, top, right, bottom = letters.line(name).box()
            rows, columns = np.nonzero(ink(letters.line(name)))
            assert left - 2 <= columns.min() - 40 and columns.max() - 40 < right + 2
            assert top - 2 <= rows.min() - 80 and rows.max() - 80 < bottom + 2

    @pytest.mark.parametrize("name", ["dog", "猫", "قطة", "", "dog 猫"])
    def test_followed_by_another(self, letters, name):
        both = letters.line(name).followed_by(letters.line("0.93"))
        if name.isascii():
            np.testing.assert_array_equal(ink(both), ink(letters.line(f"{name} 0.93")))
        assert both.pieces[-1].text.endswith("0.93")
        assert both.width - letters.line(name).width >= letters.line("0.93").width

    @pytest.mark.parametrize("name", ["", " ", "\n", "\x00\u202e"])
    def test_nothing(self, letters, name):
        line = letters.line(name, width=100)
        assert line.width == 0 and line.box(3) == (0, 0, 0, 0)


def test_fonts_are_looked_up_once_per_process():
    letters, first, second = anew().Lettering(24), [], []
    for seconds in (first, second):
        start = time.process_time()
        for name in NAMES.values():
            letters.line(name)
        seconds.append(time.process_time() - start)
    assert second[0] < first[0] / 2
