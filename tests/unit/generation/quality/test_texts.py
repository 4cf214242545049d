from dpe_jobs.generation.quality.texts import FEW, ReservedQuestions, similarity

PROBLEM = (
    "A farmer has 17 sheep in the lower field and twice as many goats in the upper field; how many animals remain when "
    "he sells nine sheep and four goats at the market on Saturday?"
)


def test_a_long_question_of_a_benchmark_is_known_again_in_nearly_the_same_words():
    reserved = ReservedQuestions()
    reserved.add(PROBLEM)
    assert reserved.find(PROBLEM.upper().replace(";", ",")) == PROBLEM
    assert reserved.find(PROBLEM.replace("Saturday", "Sunday")) == PROBLEM
    assert (
        reserved.find("A shepherd counts 20 lambs by the river; how many lambs does he count on the next day?") is None
    )


def test_a_short_question_reserves_nothing():
    reserved = ReservedQuestions()
    reserved.add("what color is the shape?")
    assert reserved.find("what color is the shape?") is None
    assert len(reserved) == 0


def test_a_pattern_that_is_asked_of_many_pictures_reserves_nothing():
    pattern = "In the table above, how much higher is the value of {} in the year 1990 than it was in the year 1980?"
    reserved = ReservedQuestions()
    for number in range(FEW + 2):
        reserved.add(pattern.format(f"country {number}"))
    reserved.add(PROBLEM)
    assert reserved.find(pattern.format("country 3")) is None
    assert reserved.find(PROBLEM) == PROBLEM


def test_a_problem_that_is_asked_of_a_few_versions_of_a_picture_stays_reserved():
    reserved = ReservedQuestions()
    for _ in range(FEW):
        reserved.add(PROBLEM)
    assert reserved.find(PROBLEM) == PROBLEM


def test_similarity_is_of_words_in_a_row():
    assert similarity("is the red one left of the blue one?", "is the red one left of the blue one") == 1
    assert similarity("is the red one left of the blue one?", "is the blue one left of the red one?") < 0.5
