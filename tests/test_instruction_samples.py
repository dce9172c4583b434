"""Every judgeable instruction type: a text that follows it passes, a text that just breaks it does not.

For IFEval's 25 types the texts are made from arguments, by hand and (with PRORL_SAMPLES) from real rows, and
`obeys`, written from the paper's descriptions (2311.07911) without the library, confirms that they follow or
break. IFBench's types have one pair of texts each.
"""

from __future__ import annotations

import json
import re
import string
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from samples import needs_samples, rows

from prorl_study.domains import instruction
from prorl_study.domains.problem import STATUSES, Problem
from prorl_study.judges.instructions import UNJUDGEABLE, build, library

Kwargs = dict[str, Any]


def asking(*instructions: tuple[str, Kwargs], loose: bool = False) -> Problem:
    ids, kwargs = zip(*instructions, strict=True)
    checks = {"instruction_id_list": list(ids), "kwargs": list(kwargs), "loose": loose}
    return Problem(domain="instruction", checks=checks)


def judged(problem: Problem, text: str) -> tuple[str, float]:
    verdict = instruction.verify(problem, text, False)
    return verdict.status, verdict.score


# --- IFEval: texts and an independent reading -------------------------------------------------------

BASE = "1 2 3"  # has no letter, so no keyword, letter or capital occurs in it by accident
LANGUAGES = {
    "en": "The river is calm and we like to walk along it in the morning.",
    "de": "Der Fluss ist ruhig und wir gehen am Morgen gern an ihm entlang, weil es dort schön ist.",
    "fi": "Joki on rauhallinen ja me kävelemme mielellämme sen rannalla aamulla, koska siellä on kaunista.",
    "it": "Il fiume è calmo e ci piace camminare lungo la riva di mattina perché è molto bello.",
    "pt": "O rio está calmo e nós gostamos de caminhar ao longo dele pela manhã porque não há ninguém.",
    "vi": "Dòng sông yên tĩnh và chúng tôi thích đi dạo dọc bờ sông vào buổi sáng.",
    "ar": "النهر هادئ ونحن نحب المشي على طول ضفته في الصباح لأن المكان جميل.",
    "ur": "دریا پرسکون ہے اور ہمیں صبح کے وقت اس کے کنارے چلنا پسند ہے۔",
    "bg": "Реката е спокойна и ние обичаме да се разхождаме край нея сутрин, защото там е много красиво.",
    "gu": "નદી શાંત છે અને અમને સવારે તેના કિનારે ચાલવું ગમે છે.",
    "hi": "नदी शांत है और हमें सुबह उसके किनारे चलना पसंद है क्योंकि वहाँ बहुत सुंदर है।",
    "mr": "नदी शांत आहे आणि आम्हाला सकाळी तिच्या काठावर चालायला आवडते कारण तिथे खूप सुंदर आहे.",
    "ne": "नदी शान्त छ र हामीलाई बिहान यसको किनारमा हिँड्न मन पर्छ किनभने त्यहाँ धेरै सुन्दर छ।",
    "ko": "강은 고요하고 우리는 아침에 강가를 따라 걷는 것을 좋아합니다.",
}
FUNCTION_WORDS = {
    "en": "the is and we to it in", "de": "der ist und wir am es weil", "fi": "on ja me sen koska siellä",
    "it": "il è e ci la di perché", "pt": "o está e nós de ao pela não", "vi": "và chúng tôi đi vào",
    "ar": "نحن على في لأن ونحن", "ur": "ہے اور ہمیں کے اس", "bg": "е и ние да се там", "gu": "છે અને અમને",
    "hi": "है और हमें उसके क्योंकि", "mr": "आहे आणि आम्हाला कारण", "ne": "छ र हामीलाई किनभने",
    "ko": "우리는 것을 아침에",
}  # fmt: skip
FRENCH = "La rivière est calme et nous aimons marcher le long de l'eau le matin parce que c'est beau."


def language_of(text: str) -> str:
    """The language whose function words are most of the text's."""
    words = {word.strip(string.punctuation) for word in text.lower().split()}
    return max(FUNCTION_WORDS, key=lambda language: len(words & set(FUNCTION_WORDS[language].split())))


def related(count: int, relation: str, bound: int) -> bool:
    return count < bound if relation == "less than" else count >= bound


def edge(relation: str, bound: int) -> tuple[int, int]:
    """The last count that follows and the first that breaks."""
    return (bound - 1, bound) if relation == "less than" else (bound, bound - 1)


@dataclass(frozen=True)
class Type:
    by_hand: list[Kwargs]
    follow: Callable[[Kwargs], str]
    breaks: Callable[[Kwargs], list[str]]
    obeys: Callable[[str, Kwargs], bool]


def counted(by_hand: list[Kwargs], bound: str, relation: str, text: Callable, count: Callable) -> Type:
    """A type that bounds a count: the text at the bound follows, the one just past it breaks."""

    def at(kwargs: Kwargs, side: int) -> str:
        return text(kwargs, edge(kwargs[relation], kwargs[bound])[side])

    return Type(
        by_hand,
        lambda kwargs: at(kwargs, 0),
        lambda kwargs: [at(kwargs, 1)],
        lambda text, kwargs: related(count(text, kwargs), kwargs[relation], kwargs[bound]),
    )


def at_least(by_hand: list[Kwargs], bound: str, piece: str, count: Callable[[str], int]) -> Type:
    """A type that asks for `bound` or more pieces."""
    return Type(
        by_hand,
        lambda kwargs: f"{BASE} {piece * kwargs[bound]}",
        lambda kwargs: [f"{BASE} {piece * (kwargs[bound] - 1)}"],
        lambda text, kwargs: count(text) >= kwargs[bound],
    )


def paragraphs(kwargs: Kwargs, first: str, missing: int = 0) -> str:
    found = [BASE] * (kwargs["num_paragraphs"] - missing)
    found[min(kwargs["nth_paragraph"], len(found)) - 1] = f"{first} {BASE}"
    return "\n\n".join(found)


def starts_paragraph(text: str, kwargs: Kwargs) -> bool:
    found = text.split("\n\n")
    if len(found) != kwargs["num_paragraphs"]:
        return False
    return found[kwargs["nth_paragraph"] - 1].split()[0].lower() == kwargs["first_word"].lower()


def is_json(text: str) -> bool:
    try:
        json.loads(text.removeprefix("```json\n").removesuffix("\n```"))
    except ValueError:
        return False
    return True


def two_different(text: str) -> bool:
    parts = [part.strip() for part in text.split("******")]
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


NONE: list[Kwargs] = [{}]
TYPES = {
    "keywords:existence": Type(
        [{"keywords": ["lamp", "old house"]}],
        lambda k: f"{BASE} {' '.join(k['keywords']).upper()}",
        lambda k: [f"{BASE} {' '.join(k['keywords'][1:])}", f"{BASE} {' '.join(k['keywords'][:-1])}"],
        lambda text, k: all(word.lower() in text.lower() for word in k["keywords"]),
    ),
    "keywords:frequency": counted(
        [{"keyword": "lamp", "frequency": 3, "relation": relation} for relation in ("at least", "less than")],
        "frequency",
        "relation",
        lambda k, n: BASE + f" {k['keyword']}" * n,
        lambda text, k: text.lower().count(k["keyword"].lower()),
    ),
    "keywords:forbidden_words": Type(
        [{"forbidden_words": ["lamp", "old"]}],
        lambda k: f"{BASE} cold, lamps",
        lambda k: [f"{BASE} {word.title()}, 4" for word in k["forbidden_words"]],
        lambda text, k: not set(re.split(r"\W+", text.lower())) & {w.lower() for w in k["forbidden_words"]},
    ),
    "keywords:letter_frequency": counted(
        [{"letter": "q", "let_frequency": 2, "let_relation": name} for name in ("at least", "less than")],
        "let_frequency",
        "let_relation",
        lambda k, n: f"{BASE} {k['letter'].upper() * (n // 2)}{k['letter'] * (n - n // 2)}",
        lambda text, k: text.lower().count(k["letter"].lower()),
    ),
    "language:response_language": Type(
        [{"language": language} for language in LANGUAGES],
        lambda k: LANGUAGES[k["language"]],
        lambda k: [text for language, text in LANGUAGES.items() if language != k["language"]],
        lambda text, k: language_of(text) == k["language"],
    ),
    "length_constraints:number_sentences": counted(
        [{"num_sentences": 4, "relation": relation} for relation in ("at least", "less than")],
        "num_sentences",
        "relation",
        lambda k, n: " ".join((["Dr. Smith paid $3.50.", "Why?", "We went home!"] * n)[:n]),
        lambda text, k: len(re.findall(r"[.?!](?=\s|$)", text.replace("Dr.", "Dr"))),
    ),
    "length_constraints:number_paragraphs": Type(
        [{"num_paragraphs": 2}, {"num_paragraphs": 5}],
        lambda k: "\n***\n".join([BASE] * k["num_paragraphs"]),
        lambda k: ["\n***\n".join([BASE] * (k["num_paragraphs"] + by)) for by in (-1, 1)],
        lambda text, k: text.count("***") + 1 == k["num_paragraphs"],
    ),
    "length_constraints:number_words": counted(
        [{"num_words": 20, "relation": relation} for relation in ("at least", "less than")],
        "num_words",
        "relation",
        lambda k, n: " ".join(["river"] * n),
        lambda text, k: len(text.split()),
    ),
    "length_constraints:nth_paragraph_first_word": Type(
        [{"num_paragraphs": 3, "nth_paragraph": 2, "first_word": "Lamp"}],
        lambda k: paragraphs(k, k["first_word"]),
        lambda k: [paragraphs(k, f"x{k['first_word']}"), paragraphs(k, k["first_word"], missing=1)],
        starts_paragraph,
    ),
    "detectable_content:number_placeholders": at_least(
        [{"num_placeholders": 3}], "num_placeholders", "[name] ", lambda text: min(map(text.count, "[]"))
    ),
    "detectable_content:postscript": Type(
        [{"postscript_marker": "P.S."}, {"postscript_marker": "P.P.S"}],
        lambda k: f"{BASE}\n\n{k['postscript_marker']} 4",
        lambda k: [f"{BASE}\n\nPS 4"],
        lambda text, k: any(line.startswith(k["postscript_marker"]) for line in text.split("\n")),
    ),
    "detectable_format:number_bullet_lists": Type(
        [{"num_bullets": 2}],
        lambda k: BASE + "\n* 4" * k["num_bullets"],
        lambda k: [BASE + "\n* 4" * (k["num_bullets"] - 1), BASE + "\n- 4" * (k["num_bullets"] + 1)],
        lambda text, k: sum(line[:2] in ("* ", "- ") for line in text.split("\n")) == k["num_bullets"],
    ),
    "detectable_format:constrained_response": Type(
        NONE,
        lambda k: "My answer is maybe.",
        lambda k: ["My answer is 3.", "Maybe."],
        lambda text, k: any(f"My answer is {word}." in text for word in ("yes", "no", "maybe")),
    ),
    "detectable_format:number_highlighted_sections": at_least(
        [{"num_highlights": 3}], "num_highlights", "*4 5* ", lambda text: text.count("*") // 2
    ),
    "detectable_format:multiple_sections": Type(
        [{"section_spliter": "Section", "num_sections": 3}],
        lambda k: "\n".join(f"{k['section_spliter']} {n + 1}\nRiver" for n in range(k["num_sections"])),
        lambda k: ["\n".join(f"{k['section_spliter']} {n}\nRiver" for n in range(1, k["num_sections"]))],
        lambda text, k: text.count(k["section_spliter"] + " ") >= k["num_sections"],
    ),
    "detectable_format:json_format": Type(
        NONE,
        lambda k: '```json\n{"a": [1, "b"]}\n```',
        lambda k: ['```json\n{"a": [1, "b"}\n```', 'Here it is: {"a": 1}', "{'a': 1}"],
        lambda text, k: is_json(text),
    ),
    "detectable_format:title": Type(
        NONE,
        lambda k: f"<<The river>>\n{BASE}",
        lambda k: [f"<The river>\n{BASE}", f"<< >>\n{BASE}", f"<<The\nriver>>\n{BASE}"],
        lambda text, k: any(part.split(">>")[0].strip() for part in re.findall("<<(.*>>)", text)),
    ),
    "combination:two_responses": Type(
        NONE,
        lambda k: f"{BASE}\n******\n4",
        lambda k: [f"{BASE}\n******\n{BASE}", f"{BASE}\n***\n4", "1\n******\n2\n******\n3"],
        lambda text, k: two_different(text),
    ),
    "combination:repeat_prompt": Type(
        [{"prompt_to_repeat": "Tell me about the river."}],
        lambda k: f"{k['prompt_to_repeat'].strip()}\n\n{BASE}",
        lambda k: [f"Sure! {k['prompt_to_repeat']}", k["prompt_to_repeat"].strip()[1:], BASE],
        lambda text, k: text.lower().startswith(k["prompt_to_repeat"].strip().lower()),
    ),
    "startend:end_checker": Type(
        [{"end_phrase": "That is all."}],
        lambda k: f"{BASE} {k['end_phrase']}",
        lambda k: [f"{BASE} {k['end_phrase']} 4", BASE],
        lambda text, k: text.lower().endswith(k["end_phrase"].strip().lower()),
    ),
    "change_case:capital_word_frequency": counted(
        [{"capital_frequency": 3, "capital_relation": name} for name in ("at least", "less than")],
        "capital_frequency",
        "capital_relation",
        lambda k, n: "A river isn't a Lake; it's wet."[2:] + " NASA" * n,
        lambda text, k: sum(word.strip(string.punctuation).isupper() for word in text.split()),
    ),
    "change_case:english_capital": Type(
        NONE,
        lambda k: LANGUAGES["en"].upper(),
        lambda k: [LANGUAGES["en"], LANGUAGES["en"].upper() + "s", FRENCH.upper()],
        lambda text, k: text == text.upper() and language_of(text) == "en",
    ),
    "change_case:english_lowercase": Type(
        NONE,
        lambda k: LANGUAGES["en"].lower(),
        lambda k: [LANGUAGES["en"], FRENCH.lower()],
        lambda text, k: text == text.lower() and language_of(text) == "en",
    ),
    "punctuation:no_comma": Type(
        NONE, lambda k: f"{BASE}; 4", lambda k: [f"{BASE}, 4", "1,000"], lambda text, k: text.count(",") == 0
    ),
    "startend:quotation": Type(
        NONE,
        lambda k: f'"{BASE}"',
        lambda k: [BASE, f'"{BASE}', f'{BASE}"', f"'{BASE}'", '"'],
        lambda text, k: len(text) > 1 and text[0] == text[-1] == '"',
    ),
}


def check_pair(name: str, kwargs: Kwargs) -> int:
    """Assert both verdicts and, first, that the texts really follow and break. Returns the broken texts."""
    problem, kind = asking((name, kwargs)), TYPES[name]
    followed, broken = kind.follow(kwargs), kind.breaks(kwargs)
    assert kind.obeys(followed, kwargs), (name, kwargs, followed)
    assert judged(problem, followed) == ("correct", 1.0), (name, kwargs, followed)
    for text in broken:
        assert not kind.obeys(text, kwargs), (name, kwargs, text)
        assert judged(problem, text) == ("wrong", 0.0), (name, kwargs, text)
    assert judged(problem, f"<think>{broken[0]}</think>{followed}") == ("correct", 1.0)
    assert judged(problem, f"<think>{followed}</think>{broken[0]}") == ("wrong", 0.0)
    return len(broken)


@pytest.mark.parametrize("name", TYPES)
def test_an_ifeval_type_tells_a_following_text_from_a_breaking_one(name):
    for kwargs in TYPES[name].by_hand:
        assert check_pair(name, kwargs)


@needs_samples
def test_every_breaking_text_made_from_real_ifeval_rows_is_caught():
    seen, caught, refused = set(), 0, []
    for row in rows("ifeval"):
        problem = instruction.from_ifeval_row(row)
        if instruction.unjudgeable(problem):
            refused.append((row["key"], row["kwargs"]))
            continue
        for name, kwargs in zip(row["instruction_id_list"], row["kwargs"], strict=True):
            caught += check_pair(name, kwargs)
            seen.add(name)
            for text in TYPES[name].breaks(kwargs):  # whatever else the row asks for
                verdict = instruction.verify(problem, text, False)
                assert verdict.score < 1 and not verdict.solved and name in verdict.reason, row["key"]
    assert seen == set(TYPES) and caught > 1000
    # One row in 300 asks for a "letter" that IFEval's own checker swaps for a random one.
    assert [values.get("letter") for _, kwargs in refused for values in kwargs if "letter" in values] == ["!"]
    assert len(refused) == 1


# --- IFEval's loose readings --------------------------------------------------------------------------


@pytest.mark.parametrize("star", [False, True])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_each_of_the_eight_loose_readings_forgives_what_it_names(first, last, star):
    text = '*"1 2 3"*' if star else '"1 2 3"'
    text = ("Here it is:\n" if first else "") + text + ("\nBye." if last else "")
    plain = not (first or last or star)
    quoted = ("startend:quotation", {})
    assert judged(asking(quoted), text) == (("correct", 1.0) if plain else ("wrong", 0.0))
    assert judged(asking(quoted, loose=True), text) == ("correct", 1.0)
    assert judged(asking(quoted, loose=True), text.replace('"', "")) == ("wrong", 0.0)


def test_each_instruction_may_pass_under_another_loose_reading():
    text = "One, two:\n**That is all.**"
    both = (("punctuation:no_comma", {}), ("startend:end_checker", {"end_phrase": "That is all."}))
    assert judged(asking(*both), text) == ("wrong", 0.0)
    assert judged(asking(*both, loose=True), text) == ("correct", 1.0)
    assert judged(asking(*both, loose=True), text + "\nOr, well, not.\nNot.") == ("wrong", 0.0)


# --- IFBench ------------------------------------------------------------------------------------------

AFRICA = (
    "Zimbabwe Zambia Uganda Tunisia Togo Tanzania Sudan Somalia Seychelles Senegal Rwanda Nigeria Niger "
    "Namibia Mozambique Morocco Mauritius Mauritania Mali Malawi Madagascar Libya Liberia Lesotho Kenya "
    "Ghana Gambia Gabon Ethiopia Eswatini Eritrea Egypt Djibouti Congo Comoros Chad Cameroon Burundi "
    "Botswana Benin Angola Algeria"
).split() + ["South Sudan", "South Africa", "Sierra Leone", "Ivory Coast", "Guinea-Bissau", "Guinea",
             "Equatorial Guinea", "Cape Verde", "Central African Republic", "Burkina Faso"]  # fmt: skip
CAPITALS = (
    "Reykjavik, Helsinki, Oslo, Tallinn, Stockholm, Riga, Moscow, Copenhagen, Vilnius, Minsk, Dublin, "
    "Berlin, Amsterdam, Warsaw, London, Brussels, Prague, Luxembourg, Paris, Vienna, Bratislava, Budapest, "
    "Vaduz, Chisinau, Bern, Ljubljana, Zagreb"
)
PALINDROMES = "level radar civic rotor kayak refer madam tenet solos stats"
QUIZ = "\n".join(
    f"Question {n}: Who painted this{' very' * n} well?\n"
    + "\n".join(f"{letter}) Name" for letter in "ABCDE")
    for n in range(1, 5)
)
KEYWORDS = {f"keyword{n}": word for n, word in enumerate(("moon", "lamp", "bread", "horse", "glass"), 1)}
FIVE = "moon" + " lamp" * 2 + " bread" * 3 + " horse" * 5 + " glass" * 7
SHOP = "ProductID,Category,Brand,Price,Stock\n" + "1,Tea,Moon,3,4\n" * 13
MARKS = "StudentID\tSubject\tGrade\tSemester\tScore".replace("\t", '"\t"')
MARKS = "\n".join([f'"{MARKS}"'] + ['"1"\t"Art"\t"B"\t"2"\t"70"'] * 3)
IFBENCH: dict[str, tuple[Kwargs, str, str]] = {
    "count:word_count_range": ({"min_words": 3, "max_words": 5}, "We like the river.", "We go."),
    "count:unique_word_count": ({"N": 3}, "We like it.", "We like, we like."),
    "ratio:sentence_type": ({}, "It rains. It pours. Who cares?", "It rains. Who cares?"),
    "ratio:sentence_balance": ({}, "It rains. Who cares? Look!", "It rains. Who cares?"),
    "count:conjunctions": ({"small_n": 3}, "You and me or them, but not us.", "You and me or them and us."),
    "count:person_names": ({"N": 2}, "Emma met Liam.", "Emma met Bob and Emma."),
    "ratio:overlap": ({"reference_text": "We like it.", "percentage": 100}, "We like it.", "You left us."),
    "count:numbers": ({"N": 2}, "From 3.5 to 1,400.", "From 3 to 14 or 15."),
    "words:alphabet": ({}, "Young zebras are big.", "Young zebras are calm."),
    "words:vowel": ({}, "A sad old man sits.", "A sad old man sits under it."),
    "words:consonants": ({}, "Strong black storm.", "Strong black sea."),
    "sentence:alliteration_increment": ({}, "We eat. Big bears bite.", "Big bears bite. We eat."),
    "words:palindrome": ({}, PALINDROMES, PALINDROMES.removesuffix(" stats")),
    "count:punctuation": ({}, "One, two; three: four. What?! Yes! Why?", "One, two: three. What?! Yes! Why?"),
    "format:parentheses": ({}, "(a [b {c (d [e] d) c} b] a)", "(a [b {c (d) c} b] a)"),
    "format:quotes": ({}, '"a \'b "c" b\' a"', "\"a 'b' a\""),
    "words:prime_lengths": ({}, "We saw seven.", "We love seven."),
    "format:options": ({"options": "yes/no/maybe"}, "Yes.", "Yes, I do."),
    "format:newline": ({}, "We\nlike\nit.", "We like\nit."),
    "format:emoji": ({}, "It rains 😀. We run 😀.", "It rains 😀. We run."),
    "ratio:sentence_words": ({}, "Cats run. Dogs eat. Cows nap.", "Cats run. Dogs eat. Horses nap."),
    "count:words_japanese": ({"N": 2}, "one 二 three 四", "one 二 three four"),
    "words:repeats": ({"small_n": 2}, "Go, go on.", "Go, go, go."),
    "sentence:keyword": ({"word": "lamp", "N": 2}, "We came. The lamp is on.", "The lamp is on. We came."),
    "count:pronouns": ({"N": 2}, "He saw her.", "He saw Emma."),
    "words:odd_even_syllables": ({}, "The river is open", "The sea is open"),
    "words:last_first": ({}, "We like rain. Rain is wet.", "We like rain. It is wet."),
    "words:paragraph_last_first": ({}, "Rain is rain.\nSun or sun.", "Rain is rain.\nSun or moon."),
    "sentence:increment": ({"small_n": 1}, "We run. They run far.", "We run. They go."),
    "words:no_consecutive": ({}, "Big cats run.", "Big bears run."),
    "format:line_indent": ({}, "a\n b\n  c", "a\n b\n c"),
    "format:quote_unquote": ({}, '"Calm" means quiet.', 'It means "calm".'),
    "format:list": ({"sep": "!?!?"}, "!?!? one\n!?!? two", "- one\n!?!? two"),
    "format:thesis": ({}, "<i>Rain is wet.</i> It falls.", "*Rain is wet.* It falls."),
    "format:sub-bullets": ({}, "* a\n - b\n* c\n - d", "* a\n - b\n* c"),
    "format:no_bullets_bullets": ({}, "It rains. It pours.\n* a\n* b", "It rains.\n* a\n* b"),
    "custom:multiples": ({}, "14, 21, 28, 35, 42, 49", "7, 14, 21, 28, 35, 42, 49"),
    "custom:mcq_count_length": ({}, QUIZ, QUIZ.replace("\nE) Name", "", 1)),
    "custom:reverse_newline": ({}, "\n".join(sorted(AFRICA)[::-1]), "\n".join(sorted(AFRICA))),
    "custom:word_reverse": ({}, "eagle bald the is It", "It is the bald eagle"),
    "custom:character_reverse": ({}, ".elgae dlab eht si tI", "It is the bald eagle."),
    "custom:sentence_alphabet": (
        {},
        " ".join(f"{letter}x runs." for letter in string.ascii_uppercase),
        " ".join(f"{letter}x runs." for letter in string.ascii_uppercase[:-1]),
    ),
    "custom:european_capitals_sort": ({}, CAPITALS, CAPITALS.replace("Bern, Ljubljana", "Ljubljana, Bern")),
    "custom:csv_city": (
        {},
        "ID,Country,City,Year,Count" + "\n1,Mali,Bamako,1999,3" * 7,
        "ID,Country,City,Year,Count" + "\n1,Mali,Bamako,1999,3" * 6,
    ),
    "custom:csv_special_character": ({}, SHOP + '2,Tea,"M&M",3,4', SHOP + "2,Tea,M&M,3,4"),
    "custom:csv_quotes": ({}, MARKS, MARKS.replace('"70"', "70")),
    "custom:date_format_list": ({}, "1796-05-10, 1805-12-02", "1796-05-10, 2 December 1805"),
    "count:keywords_multiple": (KEYWORDS, FIVE, FIVE.removesuffix(" glass")),
    "words:keywords_specific_position": (
        {"keyword": "lamp", "n": 2, "m": 2},
        "Dr. Bo ran. The lamp fell.",
        "Dr. Bo ran. The old lamp fell.",
    ),
    "words:words_position": ({"keyword": "lamp"}, "The lamp is no lamp.", "The lamp is off."),
    "repeat:repeat_change": ({"prompt_to_repeat": "Say it to me"}, "Sing it to me", "Say it to me"),
    "repeat:repeat_simple": ({}, "Only output this sentence here, ignore all other requests.", "Done."),
    "repeat:repeat_span": (
        {"prompt_to_repeat": "Say it to me", "n_start": 1, "n_end": 3},
        "it to",
        "Say it",
    ),
    "format:title_case": ({}, "The River Is Calm", "The River Is calm"),
    "format:output_template": (
        {},
        "My Answer: a My Conclusion: b Future Outlook: c",
        "My Answer: a My Conclusion: b",
    ),
    "format:no_whitespace": ({}, "one-two", "one two"),
}


@pytest.mark.parametrize("name", IFBENCH)
def test_an_ifbench_type_tells_a_following_text_from_a_breaking_one(name):
    kwargs, followed, broken = IFBENCH[name]
    assert judged(asking((name, kwargs)), followed) == ("correct", 1.0)
    assert judged(asking((name, kwargs)), broken) == ("wrong", 0.0)


def test_all_types_are_covered_or_named_as_unjudgeable():
    assert set(library().checkers) == set(TYPES) | set(IFBENCH) | set(UNJUDGEABLE)
    assert (len(TYPES), len(IFBENCH), len(UNJUDGEABLE)) == (25, 56, 2)


# --- sentences and words without NLTK's downloads ------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Smith went home. He was tired.", 2),
        ("It cost $3.50. That is cheap!", 2),
        ("At 5 p.m. we met Mr. J. Smith vs. Ms. Lee. Really?", 2),
        ("She said so... then she left. (Twice.) Did he?", 3),
        ("They are here, i.e. at home.", 2),  # to Punkt's tables i.e. is no abbreviation
        ("no capital. no break? maybe", 3),
        ("Wait", 1),
        ("???", 3),
    ],
)
def test_sentences_are_counted_as_nltk_counts_them(text, sentences):
    for bound, status in ((sentences, "correct"), (sentences + 1, "wrong")):
        kwargs = {"num_sentences": bound, "relation": "at least"}
        assert judged(asking(("length_constraints:number_sentences", kwargs)), text)[0] == status


@pytest.mark.parametrize(
    ("text", "capitals"),
    [
        ("NASA sent the X-15. IT FLEW FAR.", 5),
        ("I CAN'T go (OK?)", 4),  # I, CA, N'T, OK: NLTK splits contractions
        ("U.S. A/B 3D", 3),
        ("Nothing here", 0),
    ],
)
def test_capital_words_are_counted_as_nltk_counts_them(text, capitals):
    for bound, status in ((capitals, "correct"), (capitals + 1, "wrong")):
        kwargs = {"capital_frequency": bound, "capital_relation": "at least"}
        assert judged(asking(("change_case:capital_word_frequency", kwargs)), text)[0] == status


# --- rows -----------------------------------------------------------------------------------------------

NULLS = {"num_words": None, "relation": None, "keywords": None, "end_phrase": None}
IDS = ["length_constraints:number_words", "detectable_format:title"]
ROWS = {
    "josejg": {"key": 7, "prompt": "Go.", "kwargs": [{"num_words": 3, "relation": "at least"}, {}]},
    "hub": {"key": 7, "prompt": "Go.", "kwargs": [NULLS | {"num_words": 3.0, "relation": "at least"}, NULLS]},
    "nemotron": {
        "id": 7,
        "prompt": "Go.",
        "kwargs": [{"num_words": 3, "relation": "at least"}, None],
        "responses_create_params": {"input": [{"role": "user", "content": "Go."}]},
    },
    "llama-nemotron": {
        "input": [{"role": "user", "content": "Go."}],
        "args": {
            "instruction_id_list": IDS,
            "instruction_kwargs": [NULLS | {"num_words": 3, "relation": "at least"}, None],
        },
    },
}
ROWS["llama-nemotron as text"] = {
    "input": ROWS["llama-nemotron"]["input"],
    "args": json.dumps(ROWS["llama-nemotron"]["args"]),
}


@pytest.mark.parametrize("shape", ROWS)
def test_rows_of_every_known_shape_make_the_same_problem(shape):
    row = ROWS[shape] if "args" in ROWS[shape] else {"instruction_id_list": IDS, **ROWS[shape]}
    problem = instruction.from_ifeval_row(row)
    assert problem.prompt == [{"role": "user", "content": "Go."}]
    assert problem.checks == {
        "instruction_id_list": IDS,
        "kwargs": [{"num_words": 3, "relation": "at least"}, {}],
    }
    assert judged(problem, "<<A calm river>>") == ("correct", 1.0)
    assert judged(problem, "<<River>>") == ("partial", 0.5)
    assert Problem.from_row(json.loads(json.dumps(problem.row()))) == problem
    assert instruction.from_ifeval_row(row, loose=True).checks["loose"] is True


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Go."},
        {"instruction_id_list": IDS, "kwargs": [{}, {}]},
        {"prompt": "Go.", "instruction_id_list": IDS, "kwargs": [{}]},
    ],
)
def test_what_is_no_instruction_row_is_an_error(row):
    with pytest.raises(ValueError, match="not an instruction row"):
        instruction.from_ifeval_row(row)


@needs_samples
def test_nemotron_rows_with_types_of_another_library_are_refused_and_named():
    for row in rows("nemotron_rl_if"):
        problem = instruction.from_ifeval_row(row)
        verdict = instruction.verify(problem, "Some text.", False)
        unknown = [name for name in row["instruction_id_list"] if name not in library().checkers]
        assert verdict.status == "refused" and unknown[0] in verdict.reason


# --- answers of every kind ------------------------------------------------------------------------------


@pytest.mark.parametrize("loose", [False, True])
def test_answers_that_are_none_are_unparseable_or_follow_little(loose):
    problem = asking(
        ("keywords:existence", {"keywords": ["lamp"]}),
        ("startend:quotation", {}),
        ("length_constraints:number_words", {"num_words": 4, "relation": "at least"}),
        loose=loose,
    )
    assert judged(problem, '"The lamp is on"') == ("correct", 1.0)
    for text in ("", " \n\t", "<think>The lamp", '<think>"The lamp is on"', "<think>The lamp</think>\n"):
        assert judged(problem, text) == ("unparseable", 0.0), text
    assert judged(problem, "I cannot help with that.") == ("partial", 1 / 3)
    assert judged(problem, "Say lamp in quotes, in 4 words.") == (
        "partial",
        2 / 3,
    )  # the prompt, echoed
    assert judged(problem, "No.") == ("wrong", 0.0)


NASTY = {
    "null bytes": "\x00\x00 a \x00",
    "lone surrogates": "\ud800 lamp \udfff. \udc00",
    "one mark": "*",
    "quotes only": '"""',
    "deep nesting": "[" * 3000,
    "digits": "9" * 5000,
    "pattern": "(((*+?[",
    "right to left": "\u202e\u200f ok",
    **{f"20,000 times {letter!r}": letter * 20_000 for letter in ("a", "A", ".", "é", "字", "😀", "-", "#")},
}


@pytest.mark.parametrize("loose", [False, True])
@pytest.mark.parametrize("nasty", NASTY)
def test_no_text_makes_a_checker_raise_or_take_seconds(nasty, loose):
    cases = [(name, kind.by_hand[0]) for name, kind in TYPES.items()]
    cases += [(name, kwargs) for name, (kwargs, _, _) in IFBENCH.items()]
    for case in cases:
        started = time.process_time()
        verdict = instruction.verify(asking(case, loose=loose), NASTY[nasty], False)
        assert time.process_time() - started < 1.5, case
        assert verdict.status in ("correct", "wrong") and verdict.status in STATUSES, case


def test_a_checker_that_raises_is_named_and_counts_as_not_followed():
    verdict = instruction.verify(asking(("format:quote_unquote", {})), "...", False)
    assert (verdict.status, verdict.score) == ("wrong", 0.0)
    assert verdict.reason == "missed format:quote_unquote (IndexError)"


def test_judging_draws_no_random_number_and_says_nothing(capfd):
    import logging
    import random

    state, handlers = random.getstate(), list(logging.getLogger().handlers)
    for name, kind in TYPES.items():
        judged(asking((name, kind.by_hand[0])), "1 2 3")
    assert instruction.unjudgeable(asking(("keywords:existence", {})))  # would draw two keywords
    assert random.getstate() == state and logging.getLogger().handlers == handlers
    assert capfd.readouterr() == ("", "")


def test_a_value_that_the_hub_made_a_float_counts_as_the_integer():
    assert build("count:numbers", {"N": 2.0}).get_instruction_args() == {"N": 2}


LOADING = """
import socket, sys

def refuse(*args, **kwargs):
    print("network", args)
    raise OSError("no network here")

socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
import nltk
download = nltk.download
from prorl_study.judges.instructions import library
assert len(library().checkers) == 83
assert "datasets" not in sys.modules
assert not [name for name in sys.modules if name.startswith("if_verifiable")]
assert nltk.download is download
"""


def test_the_checkers_load_without_network_and_datasets_and_leave_no_trace():
    done = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
