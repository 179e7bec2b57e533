"""Answers are read off texts and compared as a reader would; the published variants keep their flaws."""

import pytest

from kpod_lightning.data.answers import VARIANTS, answers_equal, extract_answer

# fmt: off
CASES = [  # text, kind, variant, expected, why
    ("Two and two. The answer is 4.", "number", "strict", "4", "phrase, trailing dot"),
    ("the answer is: 12", "number", "strict", "12", "colon behind the phrase"),
    ("ANSWER: 7", "number", "strict", "7", "phrase in capitals"),
    ("We add.\n#### 31", "number", "strict", "31", "GSM8K's mark"),
    (r"Hence \boxed{42}.", "number", "strict", "42", "boxed"),
    (r"So $\boxed{\frac{3}{4}}$", "number", "strict", "3/4", "fraction in a box"),
    (r"\boxed{\dfrac{1}{2}}", "number", "strict", "1/2", "display fraction"),
    ("The answer is 3. No, wait: the answer is 5.", "number", "strict", "5", "the last phrase counts"),
    ("The answer is 3. Check: 3 + 1 = 4.", "number", "strict", "3", "a check behind it does not"),
    ("We get 5 + 3 = 8.", "number", "strict", None, "no phrase, no answer"),
    ("The answer is unclear.", "number", "strict", None, "phrase without a number"),
    ("", "number", "strict", None, "empty text"),
    ("The answer is", "number", "strict", None, "text cut off behind the phrase"),
    ("The answer is -6.", "number", "strict", "-6", "negative"),
    ("The answer is \u22126.", "number", "strict", "-6", "unicode minus"),
    ("The answer is \u20136.", "number", "strict", "-6", "en dash as minus"),
    ("The answer is $-6", "number", "strict", "-6", "sign behind the currency"),
    ("The answer is -$6", "number", "strict", "-6", "sign before the currency"),
    ("The answer is +6", "number", "strict", "6", "plus sign"),
    ("The answer is 1,450,000 seeds.", "number", "strict", "1450000", "two comma groups"),
    ("The answer is 12,345,678,901.", "number", "strict", "12345678901", "three comma groups"),
    ("The answer is 2,500.50 euros", "number", "strict", "2500.5", "separator and decimals"),
    ("The answer is 1{,}450{,}000", "number", "strict", "1450000", "LaTeX {,}"),
    (r"The answer is 1\,450\,000", "number", "strict", "1450000", "LaTeX thin blank"),
    ("The answer is 1\u2009450\u2009000", "number", "strict", "1450000", "unicode thin blank"),
    ("The answer is 1\u202f450", "number", "strict", "1450", "narrow no-break blank"),
    ("The answer is 1\u00a0450", "number", "strict", "1450", "no-break blank"),
    ("The answer is .5", "number", "strict", "0.5", "no digit before the point"),
    ("The answer is 20.0", "number", "strict", "20", "trailing zero"),
    ("The answer is 20.50", "number", "strict", "20.5", "trailing zero behind a decimal"),
    ("The answer is 007", "number", "strict", "7", "leading zeros"),
    ("The answer is 0", "number", "strict", "0", "zero"),
    ("The answer is 0.0", "number", "strict", "0", "zero with a decimal"),
    ("The answer is $18.", "number", "strict", "18", "dollars"),
    (r"The answer is \$18", "number", "strict", "18", "escaped dollars"),
    ("The answer is \u20ac18", "number", "strict", "18", "euros before"),
    ("The answer is 18 \u20ac.", "number", "strict", "18", "euros behind"),
    ("The answer is 35%", "number", "strict", "35", "per cent"),
    (r"The answer is 35\%", "number", "strict", "35", "escaped per cent"),
    ("The answer is 9 km/h", "number", "strict", "9", "unit with a slash"),
    ("The answer is 25cm", "number", "strict", "25", "unit without blank"),
    ("The answer is 3/4 of a pie", "number", "strict", "3/4", "fraction"),
    ("The answer is 1 1/2 cups", "number", "strict", "3/2", "mixed number"),
    ("The answer is -1 1/2", "number", "strict", "-3/2", "negative mixed number"),
    ("The answer is seven.", "number", "strict", "7", "spelled out"),
    ("The answer is zero.", "number", "strict", "0", "spelled-out zero"),
    ("The answer is twenty-one goats.", "number", "strict", "21", "tens and ones"),
    ("The answer is Forty.", "number", "strict", "40", "tens, capital"),
    ("The answer is 4 + 5 = 9.", "number", "strict", "9", "behind the equals sign"),
    ("The answer is **16**.", "number", "strict", "16", "bold"),
    (r"The answer is \(16\).", "number", "strict", "16", "LaTeX brackets"),
    (r"\boxed{16 \text{ goats}}", "number", "strict", "16", "text in a box"),
    (r"\boxed{1{,}200}", "number", "strict", "1200", "braces within the box"),
    ("The answer is\n16", "number", "strict", "16", "answer on the next line"),
    ("Final answer: one of the 3 is left, so 3", "number", "strict", "3", "digits before words"),
    ("The answer is 9. Then 5.", "number", "flexible", "9", "strict comes first"),
    ("First 2 + 3 = 5.\nThen 5 * 4 = 20.", "number", "flexible", "20", "last equals sign"),
    ("There were 9. Therefore 6 are left.", "number", "flexible", "6", "therefore"),
    ("There were 9, so she keeps 7.", "number", "flexible", "7", "so"),
    ("He carries 14 stones.", "number", "flexible", "14", "only number"),
    ("She sells 8 of them and keeps three.", "number", "flexible", "8", "digits before words"),
    ("She keeps three.", "number", "flexible", "3", "word alone"),
    ("No digits here.", "number", "flexible", None, "none"),
    ("10 - 4 = 6", "number", "flexible", "6", "a subtraction"),
    ("4 - 10 = -6", "number", "flexible", "-6", "negative result"),
    ("In all 3 * 500,000 = 1,500,000", "number", "flexible", "1500000", "long separators"),
    ("Half of 3 is 3/2 = 1.5 litres.", "number", "flexible", "1.5", "decimal behind equals"),
    ("So each gets 6 / 4 = 1 1/2 loaves.", "number", "flexible", "3/2", "mixed result"),
    ("x = 5 so y = 2x = 10 pens", "number", "flexible", "10", "chain of equals signs"),
    ("He has 4.\nTherefore he eats 3 of 9.", "number", "mcc_kd", "9", "last number behind therefore"),
    ("Therefore 3 are red. Of them 2.\nIt rains.", "number", "mcc_kd", "2", "a line without numbers"),
    ("Therefore 3.\nThere are 8 cows.", "number", "mcc_kd", "8", "last line with a number wins"),
    ("4 and 5, so many", "number", "mcc_kd", "5", "nothing behind so: the whole line"),
    ("So it costs 1,450,000", "number", "mcc_kd", "000", "published flaw: second comma group"),
    ("So it costs 1,450", "number", "mcc_kd", "1450", "one comma group"),
    ("So it costs 20.0", "number", "mcc_kd", "20", ".0 removed"),
    ("So there are twelve", "number", "mcc_kd", "12", "word to twelve"),
    ("So there are thirteen", "number", "mcc_kd", None, "no word beyond twelve"),
    ("So it sinks to -3", "number", "mcc_kd", "-3", "minus"),
    ("", "number", "mcc_kd", None, "empty"),
    ("There are 5.\nIt is 7 or 9.", "number", "mcc_kd_2023", "9", "last number of the last line"),
    ("There are 5.\nNone left.", "number", "mcc_kd_2023", None, "earlier lines do not count"),
    ("It is 20.0", "number", "mcc_kd_2023", "20.0", ".0 stays"),
    ("It is 1,450", "number", "mcc_kd_2023", "1,450", "comma stays"),
    ("There are 5.\n\n", "number", "mcc_kd_2023", "5", "blank end stripped"),
    ("It sinks to -3", "number", "fu", "3", "no minus"),
    ("It is 1,450", "number", "fu", "450", "no comma handling"),
    ("First 2.5 then 3.5 metres", "number", "fu", "3.5", "last decimal"),
    ("The answer is 4. Check 5.", "number", "fu", "5", "no phrase"),
    ("none", "number", "fu", None, "no digits"),
    ("So the answer is (b) basket.", "choice", "strict", "B", "letter in brackets and text"),
    ("The answer is B.", "choice", "strict", "B", "letter and dot"),
    ("the answer is b", "choice", "strict", "B", "bare small letter"),
    ("the answer is a", "choice", "strict", "A", "bare small a"),
    ("The answer is b) basket", "choice", "strict", "B", "half bracket"),
    ("The answer is a basket, so the answer is (C).", "choice", "strict", "C", "a is an article"),
    ("The answer is a basket.", "choice", "strict", None, "an article is no letter"),
    (r"\boxed{D}", "choice", "strict", "D", "boxed letter"),
    ("Answer: E", "choice", "strict", "E", "answer:"),
    ("The answer is (h) hut", "choice", "strict", None, "beyond G"),
    ("B. basket", "choice", "strict", None, "no phrase"),
    ("B.", "choice", "flexible", "B", "letter alone"),
    ("(b) basket", "choice", "flexible", "B", "brackets without phrase"),
    ("Not (a), rather (c).", "choice", "flexible", "C", "last in brackets"),
    ("A man looks for a box.", "choice", "flexible", None, "articles only"),
    ("Is it A or K?", "choice", "mcc_kd", "K", "last standalone A-N"),
    ("It is B.\nGood Dogs", "choice", "mcc_kd", "B", "standalone only"),
    ("It is B.\nGood Dogs", "choice", "mcc_kd_2023", "D", "last line, any capital A-G"),
    ("it is b", "choice", "mcc_kd", None, "small letters do not count"),
    ("So the answer is yes.", "yes_no", "strict", "yes", "yes"),
    ("The answer is No", "yes_no", "strict", "no", "capital"),
    ("Yes, it floats.", "yes_no", "strict", None, "no phrase"),
    ("Yes, it floats.", "yes_no", "flexible", "yes", "anywhere"),
    ("Not known.", "yes_no", "flexible", None, "not is not no"),
    ("Answer: True", "yes_no", "strict", "yes", "true is yes"),
    ("It falls from 3 to -5.", "number", "flexible", "-5", "a minus behind a word is a sign"),
    ("It is 10-4", "number", "flexible", "4", "a minus between numbers is no sign"),
    ("b", "choice", "flexible", "B", "small letter alone"),
    ("It is 10 - 4.", "number", "flexible", "4", "nor is a minus between blanks"),
    ("That takes 5-10 days", "number", "flexible", "10", "a range has no sign"),
]
EQUAL = [  # predicted, gold, kind, expected
    ("18", "18", "number", True),
    ("20.0", "20", "number", True),
    ("3/4", "0.75", "number", True),
    ("1 1/2", "1.5", "number", True),
    ("1,450,000", "1450000", "number", True),
    ("-6", "\u22126", "number", True),
    ("0.333333", "1/3", "number", True),
    ("0.33", "1/3", "number", False),
    ("33.333333", "100/3", "number", True),
    ("0", "0.0000005", "number", True),
    ("18", "19", "number", False),
    (None, "18", "number", False),
    ("", "18", "number", False),
    ("6", "-6", "number", False),
    ("1/0", "1", "number", False),
    ("$18", "18", "number", True),
    ("35%", "35", "number", True),
    ("12345678901234567890", "12345678901234567890", "number", True),
    ("b", "B", "choice", True),
    ("A", "B", "choice", False),
    (None, "B", "choice", False),
    (None, "no", "yes_no", False),
    ("Yes", "yes", "yes_no", True),
    ("no", "yes", "yes_no", False),
    ("1000001", "1000000", "number", True),
]
# fmt: on


@pytest.mark.parametrize("text, kind, variant, expected, why", CASES)
def test_answer_is_read_off_the_text(text, kind, variant, expected, why):
    assert extract_answer(text, kind=kind, variant=variant) == expected, why


@pytest.mark.parametrize("predicted, gold, kind, expected", EQUAL)
def test_answers_are_equal_by_value(predicted, gold, kind, expected):
    assert answers_equal(predicted, gold, kind) is expected


def test_default_is_a_strict_number():
    assert extract_answer("There are 8.") is None
    assert extract_answer("The answer is 8.") == "8"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["number", "choice", "yes_no"])
def test_every_variant_finds_nothing_in_blanks(kind, variant):
    assert extract_answer(" \n ", kind=kind, variant=variant) is None


def test_unknown_kind_or_variant_is_refused():
    with pytest.raises(ValueError, match="essay"):
        extract_answer("8", kind="essay")
    with pytest.raises(ValueError, match="guess"):
        extract_answer("8", variant="guess")
    with pytest.raises(ValueError, match="essay"):
        answers_equal("8", "8", "essay")
