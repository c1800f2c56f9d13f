from collections import Counter

import pytest

from lab.data.speech.corpora import load_corpus
from lab.data.splits import split_of
from lab.errors import LabError
from standins.speech.amazon_queen import GAME_FILE, PACKAGE, GameFile, paired_lines, segments, transcripts
from tests.data.fakes import cutscene_file, dialogue_file, encoded, game_file, installed, tone

NARRATION = "It looks nice*03\r\nc2c.CUT\r\nBoy!*03It's a (sigh)*24\r\nA ray gun^_*14".encode("latin-1")
DIALOGUE = dialogue_file(
    6,
    joe={0: "Excuse me Bob.*03", 6: "*19Does she*17 live here?*04*03"},
    other={0: "Howdy Bob.*02", 6: "*XY00(128,112)*FLYes, she does.*02", 40: "*03"},
    openings=("Hello again Joe.", "Howdy Bob.*02"),
)
CUTSCENE = cutscene_file(["", "*", "Hello Joe.", "*14*WTWell?*03Nothing", "effect.SAM"])
CLIPS = {
    "JOE00411": "It looks nice",
    "JOE00431": "Boy!",
    "JOE00432": None,  # a noise
    "JOE00441": "A ray gun",
    "06SSSSJ1": "Excuse me Bob.",
    "060006J2": "Does she",
    "060006J3": "live here?",
    "060006P3": "Yes, she does.",
    "06XXXXP1": "Hello again Joe.",
    "06XXXXJ1": "Howdy Bob.",
    "C1A__021": "Hello Joe.",
    "C1A__033": "Well?",
    "C1A__034": "Nothing",
    "GM01": None,  # a clip of no known text
}


def game(extra: dict[str, bytes] | None = None) -> bytes:
    clip = encoded(tone(0.5, 11025), 11025, "libmp3lame", "mp3")
    texts = {"QUEEN2.JAS": NARRATION, "BOB1.DOG": DIALOGUE, "C1A.CUT": CUTSCENE}
    return game_file({**texts, **{f"{name}.SB": clip for name in CLIPS}, **(extra or {})})


def test_segments_are_numbered_from_one_with_empty_ones_counted():
    assert segments("*XY00(128,112)*FLWhat?*03Go!*00") == ["", "", "What?", "Go!", ""]
    assert segments("no code at all") == ["no code at all"]


def test_every_clip_gets_its_text():
    skipped: Counter[str] = Counter()
    lines = paired_lines(GameFile(data=game(), path="queen.1c"), skipped)
    assert {line.clip: line.text for line in lines} == {clip: text for clip, text in CLIPS.items() if text}
    speakers = {line.clip: line.speaker for line in lines}
    assert {clip for clip, speaker in speakers.items() if speaker == "BOB"} == {"060006P3", "06XXXXP1"}
    assert {clip for clip, speaker in speakers.items() if speaker == "CUTSCENE"} == {"C1A__021", "C1A__033", "C1A__034"}
    assert skipped["noise in the text"] == 1
    assert skipped["clip without a text"] == 1
    assert skipped["text without a clip"] == 2  # c2c.CUT, effect.SAM


def test_cutscenes_can_be_left_out():
    lines = paired_lines(GameFile(data=game(), path="queen.1c"), Counter(), cutscenes=False)
    assert len(lines) == 9
    assert "CUTSCENE" not in {line.speaker for line in lines}


def test_the_tenth_segment_is_numbered_in_hexadecimal():
    text = "*00".join(["C", "H", "A", "R", "O", "N", "i", "s", "i", "tenth"])
    dog = dialogue_file(12, joe={}, other={0x23: text}, openings=("", ""), levels=-2)
    clip = encoded(tone(0.3, 11025), 11025, "libmp3lame", "mp3")
    data = game_file({"QUEEN2.JAS": b"", "DEATH1.DOG": dog, "120023PA.SB": clip})
    assert [line.text for line in paired_lines(GameFile(data=data, path="q"), Counter())] == ["tenth"]


def test_a_clip_with_two_texts_is_left_out():
    again = dialogue_file(6, joe={6: "*19Another*17text"}, other={}, openings=("", ""))
    skipped: Counter[str] = Counter()
    lines = paired_lines(GameFile(data=game({"BOB2.DOG": again}), path="q"), skipped)
    assert skipped["clip with two texts"] == 2
    assert "060006J2" not in {line.clip for line in lines}


def test_files_that_do_not_parse_are_counted():
    skipped: Counter[str] = Counter()
    broken = {"BAD.DOG": DIALOGUE[:170], "BAD.CUT": CUTSCENE[:50]}
    lines = paired_lines(GameFile(data=game(broken), path="q"), skipped)
    assert skipped["file of lines that does not parse"] == 2
    assert len(lines) == 12


@pytest.mark.parametrize("data", [b"", b"nothing", game()[:200], game()[:-10]])
def test_a_file_that_is_not_the_game_is_named(data):
    with pytest.raises(LabError, match=r"queen.1c is (not the game file|truncated)"):
        GameFile(data=data, path="queen.1c")


def test_the_corpus_is_decoded_and_labelled():
    installed(PACKAGE, {GAME_FILE: game()})
    corpus = load_corpus("amazon_queen", held_out_fraction=0.0)
    assert {u.id: u.answer for u in corpus.samples} == {clip: text for clip, text in CLIPS.items() if text}
    for one in corpus.samples:
        assert one in corpus.split(split_of(one.answer))
        assert one.sound.num_samples / 16000 == pytest.approx(0.5, abs=0.15)
        assert abs(one.sound.read()).max() == pytest.approx(0.3, abs=0.05)
    assert corpus.manifest["language"] == "en"
    assert list(corpus.manifest["sources"]) == [PACKAGE]


def test_minor_characters_are_held_out_of_training():
    many = {number: f"Line {number} of somebody.*02" for number in range(1, 60)}
    clip = encoded(tone(0.3, 11025), 11025, "libmp3lame", "mp3")
    entries: dict[str, bytes] = {"QUEEN2.JAS": b""}
    for key, name in ((10, "ANN1.DOG"), (11, "BEN.DOG")):
        entries[name] = dialogue_file(key, joe={}, other=many, openings=("", ""))
        entries.update({f"{key}{number:04X}P1.SB": clip for number in many})
    installed(PACKAGE, {GAME_FILE: game_file(entries)})
    corpus = load_corpus("amazon_queen", minor_share=0.5)
    (held_out,) = corpus.manifest["held_out_speakers"]
    assert {u.sound.speaker for u in corpus.split("train")} == {"ANN", "BEN"} - {held_out}
    tested = {u.sound.speaker for name in ("dev", "test") for u in corpus.split(name)}
    assert held_out in tested
    assert corpus.manifest["skipped"]["training sentence of a held-out speaker"] == sum(
        split_of(text.removesuffix("*02")) == "train" for text in many.values()
    )


def test_transcripts_need_no_audio():
    installed(PACKAGE, {GAME_FILE: game()})
    assert "Does she" in transcripts()
