"""From a row of the source to questions, or to everything that is wrong with it."""

import json
import math
import threading
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from dpe_api.artifacts import AnswerType
from dpe_jobs.importing import answers, turns
from dpe_jobs.importing.columns import MISSING, Rules, cell
from dpe_jobs.importing.images import Images
from dpe_jobs.importing.rows import Fault, Row
from dpe_jobs.questions import Question, read_facets


class BadRow(Exception):
    """A row that makes no question, with every reason."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(f"{f.field}: {f.reason}" for f in faults))
        self.faults = tuple(faults)


def text_of(value: Any) -> str | None:
    """A cell as text: numbers as written, booleans as yes and no; None when it is empty. ValueError: it is no text."""
    if value is None or value is MISSING:
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return None if math.isnan(value) else repr(value)
    if isinstance(value, int | Decimal):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__}, not a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError("not UTF-8: convert the file") from error
    return value if value.strip() else None


class _Fields:
    """The fields of one row; what is wrong with them is gathered, not raised."""

    def __init__(self, rules: Rules, cells: Mapping[str, Any]) -> None:
        self.rules, self._cells = rules, cells
        self.faults: list[Fault] = []
        talk = self.raw("conversations")
        self.talk = None if talk is MISSING else talk
        self.answer_field = "answer" if self.talk is None else "conversations"

    def raw(self, field: str) -> Any:
        column = self.rules.columns.get(field)
        return MISSING if column is None else cell(self._cells, column)

    def complain(self, field: str, reason: str) -> None:
        self.faults.append(Fault(self.rules.columns.get(field) or field, reason))

    def column(self, name: str) -> str | None:
        try:
            return text_of(cell(self._cells, name))
        except ValueError as error:
            self.faults.append(Fault(name, str(error)))
            return None

    def text(self, field: str, *, required: bool = False) -> str:
        value = self.raw(field)
        try:
            text = text_of(value)
        except ValueError as error:
            self.complain(field, str(error))
            return ""
        if required and text is None:
            self.complain(field, "missing" if value is MISSING else "empty")
        return text or ""

    def choices(self) -> tuple[str, ...]:
        names = self.rules.columns.get("choices", "").split(",")
        if len(names) > 1:
            return self._choice_cells(names)
        value = self.raw("choices")
        if value in (MISSING, None, "", [], {}):
            return ()
        try:
            found = tuple(text_of(v) or "" for v in answers.read_list(value))
            answers.check_choices(found)
        except ValueError as error:
            self.complain("choices", str(error))
            return ()
        return found

    def _choice_cells(self, names: Sequence[str]) -> tuple[str, ...]:
        # pandas writes an empty cell of a column of texts as "nan" when told to write texts only
        found = [text if text != "nan" else None for text in map(self.column, names)]
        while found and found[-1] is None:
            found.pop()
        if None in found:
            self.faults.append(Fault(names[found.index(None)], f"empty, though {names[len(found) - 1]} is filled"))
            return ()
        texts = tuple(text for text in found if text is not None)
        try:
            if texts:
                answers.check_choices(texts)
        except ValueError as error:
            self.faults.append(Fault(",".join(names[: len(texts)]), str(error)))
            return ()
        return texts

    def facets(self) -> dict[str, str]:
        value = self.raw("facets")
        found: dict[str, str] = {}
        try:
            found = read_facets(None if value is MISSING else value)
        except (ValueError, KeyError, TypeError) as error:
            self.complain("facets", f"{error}: write an object, or a list of key and value")
        for name, column in self.rules.facets.items():
            text = self.column(column)
            if text is not None:
                found[name] = text
        return found


class Converter:
    """Makes questions of rows by settled rules; in several threads at once."""

    def __init__(self, rules: Rules, images: Images, *, letters_first: bool) -> None:
        self._rules, self._images, self._letters_first = rules, images, letters_first
        self.turns_left_out = 0
        self._lock = threading.Lock()

    def questions(self, row: Row) -> list[Question]:
        """One question, or one for each turn of a conversation. BadRow lists everything that is wrong."""
        if row.fault is not None:
            raise BadRow([row.fault])
        fields = _Fields(self._rules, row.cells)
        item_id = fields.text("id", required=True) if "id" in self._rules.columns else str(row.number)
        asked = self._asked(fields)
        common = {
            "category": self._category(fields),
            "facets": fields.facets(),
            "source": self._rules.source or fields.text("source") or None,
            "licence": self._rules.licence or fields.text("licence") or None,
            "image": self._image(fields),
        }
        made = []
        for turn, (question, answer) in enumerate(asked, 1):
            fitting = self._answer(fields, question, answer)
            turn_id = f"{item_id}#{turn}" if len(asked) > 1 else item_id
            made.append({**common, **fitting, "id": turn_id, "question": question})
        if fields.faults:
            raise BadRow(fields.faults)
        return [Question(**question) for question in made]

    def _asked(self, fields: _Fields) -> list[tuple[str, Any]]:
        if fields.talk is not None:
            try:
                pairs = turns.pairs(fields.talk)
            except ValueError as error:
                fields.complain("conversations", str(error))
                return []
            if self._rules.first_turn_only:
                with self._lock:
                    self.turns_left_out += len(pairs) - 1
                return [pairs[0]]
            return list(pairs)
        question = fields.text("question", required=True)
        hint = fields.text("hint")
        if hint and hint != "nan":
            question = f"Hint: {hint}\n{question}"
        return [(question, fields.raw("answer"))]

    def _image(self, fields: _Fields) -> bytes:
        value = fields.raw("image")
        try:
            if value is MISSING:
                raise ValueError("missing")
            return self._images.load(value)
        except ValueError as error:
            fields.complain("image", str(error))
            return b""

    def _category(self, fields: _Fields) -> str:
        if self._rules.category is not None or not self._rules.with_categories:
            return self._rules.category or ""
        return fields.text("category", required=True)

    def _kind(self, fields: _Fields) -> AnswerType | None:
        said = fields.text("answer_type")
        if self._rules.answer_type is not None or not said:
            return self._rules.answer_type
        try:
            return AnswerType(said)
        except ValueError:
            kinds = ", ".join(AnswerType)
            fields.complain("answer_type", f"{said!r} is none of {kinds}; --column answer_type= ignores the column")
            return None

    def _answer(self, fields: _Fields, question: str, answer: Any) -> dict[str, Any]:
        """Answer, answer_type and choices of one question."""
        nothing = {"answer": "", "answer_type": AnswerType.EXACT, "choices": ()}
        before = len(fields.faults)
        kind, choices = self._kind(fields), fields.choices()
        where = fields.answer_field
        try:
            answer = _only(answer, kind)
            text = text_of(answer)
        except ValueError as error:
            fields.complain(where, str(error))
            return nothing
        if text is None:
            fields.complain(where, "missing" if answer is MISSING else "empty")
        if text is None or len(fields.faults) > before:
            return nothing
        choices = choices or (answers.listed_choices(question, text) if kind in (None, AnswerType.CHOICE) else ())
        kind = kind or answers.infer(text, choices)
        try:
            if kind is AnswerType.CHOICE and choices:
                whole = isinstance(answer, int) and not isinstance(answer, bool)
                text = answers.choose(
                    answer if whole else text, choices, self._rules.answer_is, letters_first=self._letters_first
                )
        except ValueError as error:
            fields.complain(where, str(error))
            return nothing
        reason = answers.misfit(text, kind, choices)
        if reason is not None:
            fields.complain(where, reason)
        return {"answer": text, "answer_type": kind, "choices": choices}


def _only(given: Any, kind: AnswerType | None) -> Any:
    """The answer of a list of one, or of several that are the same; all of them when a list is what is asked for.

    ValueError for several that differ: it is not known whether each is right, or only all of them.
    """
    if isinstance(given, str) and given.startswith("[") and kind is None:
        try:
            given = answers.read_list(given)
        except ValueError:
            return given
    if not isinstance(given, list):
        return given
    if kind is AnswerType.LIST:
        return json.dumps([text_of(value) for value in given], ensure_ascii=False)
    unlike = {text_of(value) for value in given}
    if len(unlike) != 1:
        raise ValueError(
            f"{len(unlike)} different answers: write the one that counts, or, when all belong to it, --answer-type list"
        )
    return given[0]
