import pytest

from indexer.segment.analyzer import LANGUAGES, Analyzer


@pytest.mark.parametrize(
    ("language", "text", "terms"),
    [
        ("en", "The dogs' RUNNING, e-mail x", ["dog", "run", "mail"]),
        ("none", "The dogs' RUNNING", ["the", "dogs", "running"]),
        ("de", "Die Häuser", ["haus"]),
        ("fr", "les chevaux de l'île", ["cheval", "île"]),
        ("ar", "الكتب", ["كتب"]),
        ("ja", "東京都 Tokyo", ["東", "東京", "京", "京都", "都", "tokyo"]),
        ("ko", "한국 2", ["한", "한국", "국", "2"]),
        ("zh", "猫", ["猫"]),
        ("en", "", []),
    ],
)
def test_terms(language, text, terms):
    assert Analyzer(language).analyze(text) == terms


def test_terms_are_repeated_as_often_as_they_are_said():
    assert Analyzer("en").analyze("tide tides tide") == ["tide", "tide", "tide"]


def test_words_of_255_bytes_are_dropped():
    assert Analyzer("en").analyze("a" * 254 + "b" * 255) == []
    assert Analyzer("en").analyze("q" * 254 + " " + "b" * 255) == ["q" * 254]


def test_a_run_of_chinese_is_no_long_word():
    assert len(Analyzer("zh").analyze("猫" * 1000)) == 1999


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_say_where_they_stand(language):
    analyzer = Analyzer(language)
    text = "Café 𝔸 naïve 東京x running"
    words = analyzer.words(text)
    assert [word.term for word in words] == analyzer.analyze(text)
    assert text[words[-1].start : words[-1].end] == "running"
    assert text[words[0].start : words[0].end] == "Café"
    assert [word.position for word in words] == sorted(word.position for word in words)


def test_stop_words_keep_their_place():
    assert [(w.term, w.position) for w in Analyzer("en").words("tide of the moon")] == [
        ("tide", 0),
        ("moon", 3),
    ]


def test_an_unknown_language_is_named():
    with pytest.raises(ValueError, match="unknown language 'xx'; known are ar, cjk, da"):
        Analyzer("xx")
