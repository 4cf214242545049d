"""Edits by an endpoint, against a server that speaks images/edits over real HTTP."""

import asyncio
from contextlib import suppress

import httpx
import pytest
from PIL import Image, ImageOps
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_images import FakeImages, answer, encoded, serving
from tests.fakes.openai_server import Reply, complaint

from dpe_api.endpoints import Endpoint, SecretKeyRef, SpendingLimit, key_variable
from dpe_api.generation_spec import SourceKind
from dpe_jobs.client import Account, Budget, BudgetSpent, ModelClient, Refused, RequestFailed
from dpe_jobs.generation.agents.clients import account_of
from dpe_jobs.generation.dedup import pixel_digest
from dpe_jobs.generation.edit.endpoint import LONGEST_PROMPT, Editor
from dpe_jobs.generation.fetching.reasons import NotFetched, Reason
from dpe_jobs.generation.images import NoImage, Origin, Picture
from dpe_jobs.generation.roles import Rejected
from dpe_jobs.ledger import Ledger
from dpe_jobs.runtime import BadConfig

FOLDER = "s3://bucket/run/edits"
LEDGER = "s3://bucket/run/ledger"
ORIGINAL = Picture(
    Image.linear_gradient("L").convert("RGB"),
    Origin(SourceKind.POOL, "pool:s3://bucket/pool", "abc", "CC-BY-4.0", title="dunes", author="somebody"),
    {"color": "gray"},
)


def inverted(asked) -> Image.Image:
    return ImageOps.invert(asked.image)


async def plain_fetch(url: str) -> bytes:
    """Stands for the guarded download, which refuses addresses of this machine."""
    async with httpx.AsyncClient() as http:
        return (await http.get(url)).content


def endpoint(server: FakeImages, **more) -> Endpoint:
    return Endpoint(name="editor", url=f"{server.url}/v1", model="edit-1", **more)


def edit(server: FakeImages, instruction: str = "invert it", *, store=None, fetch=plain_fetch, **how):
    async def run() -> tuple[Picture, Account]:
        given, kept = endpoint(server, **how.pop("endpoint", {})), store or MemoryStore()
        account = Account(given)
        with Ledger(kept, LEDGER) as ledger:
            async with ModelClient.of(given, account=account) as client:
                editor = Editor("editor", client, kept, FOLDER, fetch, ledger)
                return await editor.edit(how.pop("picture", ORIGINAL), instruction, **how), account

    return asyncio.run(run())


@pytest.mark.parametrize("by_address", [False, True], ids=["base64", "address"])
def test_the_edited_picture_comes_back_with_where_it_is_from_and_without_the_facts_of_the_original(by_address):
    with serving(inverted, by_address=by_address) as server:
        picture, account = edit(server, "make it\n  dark")
    assert pixel_digest(picture.image) == pixel_digest(ImageOps.invert(ORIGINAL.image))
    assert picture.origin.parents == (ORIGINAL.origin,)
    assert (picture.origin.source, picture.origin.licence) == ("edit:editor", "CC-BY-4.0")
    assert picture.facts == {}, "nobody knows what the model made of it"
    assert picture.tool_calls[-1]["arguments"] == {"instruction": "make it dark"}
    assert server.edits[0].fields == {"prompt": "make it dark", "model": "edit-1", "n": "1"}
    spent = account.report()
    assert (spent.calls, spent.tokens.prompt, spent.tokens.completion) == (1, 30, 200)


def test_an_edit_that_was_paid_for_is_not_asked_again_but_another_seed_is(tmp_path):
    store = MemoryStore()
    with serving(inverted) as server:
        first, _ = edit(server, store=store)
        again, account = edit(server, store=store)
        assert again.origin == first.origin
        assert pixel_digest(again.image) == pixel_digest(first.image)
        assert account.report().calls == 0
        assert edit(server, store=store, seed=2)[0].origin.id != first.origin.id
        assert edit(server, "blur it", store=store)[0].origin.id != first.origin.id
    assert len(server.edits) == 3


def test_what_edits_cost_is_not_forgotten_by_a_restart():
    store = MemoryStore()
    with serving(inverted) as server:
        edit(server, store=store)
        edit(server, "blur it", store=store)
        with Ledger(store, LEDGER) as ledger:
            spent = account_of(endpoint(server), ledger).report()
    assert (spent.calls, spent.tokens.prompt, spent.tokens.completion) == (2, 60, 400)


def test_an_address_that_was_paid_for_is_read_by_the_next_attempt_and_no_edit_bought_again():
    async def killed(url: str) -> bytes:
        raise KeyboardInterrupt

    store = MemoryStore()
    with serving(inverted, by_address=True) as server:
        with pytest.raises(KeyboardInterrupt):
            edit(server, store=store, fetch=killed)
        picture, _ = edit(server, store=store)
        assert len(server.edits) == 1
    assert pixel_digest(picture.image) == pixel_digest(ImageOps.invert(ORIGINAL.image))


def test_an_edit_is_reckoned_as_the_dearest_one_so_far():
    async def edits(server: FakeImages) -> int:
        given = endpoint(server, budget=SpendingLimit(tokens=500))  # one costs 230
        with Ledger(store := MemoryStore(), LEDGER) as ledger:
            async with ModelClient.of(given, account=Account(given)) as client:
                editor = Editor("editor", client, store, FOLDER, plain_fetch, ledger)
                for number in range(3):
                    with suppress(BudgetSpent):
                        await editor.edit(ORIGINAL, "invert it", seed=number)
        return len(server.edits)

    with serving(inverted) as server:
        assert asyncio.run(edits(server)) == 2


class Forgetful(MemoryStore):
    """A store of a pod that is killed before an answer is in it."""

    kills = 1

    def put(self, uri: str, data: bytes) -> None:
        if uri.endswith(".bin") and self.kills:
            self.kills -= 1
            raise KeyboardInterrupt
        super().put(uri, data)


def test_an_edit_that_was_paid_for_twice_counts_twice():
    store = Forgetful()
    with serving(inverted) as server:
        with pytest.raises(KeyboardInterrupt):
            edit(server, store=store)
        edit(server, store=store)
        assert len(server.edits) == 2
        with Ledger(store, LEDGER) as ledger:
            spent = account_of(endpoint(server), ledger).report()
    assert (spent.calls, spent.tokens.completion) == (2, 400)


def test_the_address_of_a_second_payment_is_read_by_the_next_attempt():
    async def killed(url: str) -> bytes:
        raise KeyboardInterrupt

    store = Forgetful()
    with serving(inverted) as server, pytest.raises(KeyboardInterrupt):
        edit(server, store=store)
    with serving(inverted, by_address=True) as server:
        with pytest.raises(KeyboardInterrupt):
            edit(server, store=store, fetch=killed)
        edit(server, store=store)
        assert len(server.edits) == 1


def test_the_dearest_edit_of_an_earlier_attempt_is_reckoned_with():
    async def another(server: FakeImages) -> None:
        given = endpoint(server, budget=SpendingLimit(tokens=400))  # one costs 230
        with Ledger(store, LEDGER) as ledger:
            async with ModelClient.of(given, account=account_of(given, ledger)) as client:
                await Editor("editor", client, store, FOLDER, plain_fetch, ledger).edit(ORIGINAL, "blur it")

    store = MemoryStore()
    with serving(inverted) as server:
        edit(server, store=store)
        with pytest.raises(BudgetSpent):
            asyncio.run(another(server))
        assert len(server.edits) == 1


@pytest.mark.parametrize("code", ["moderation_blocked", "content_policy_violation", "content_filter"])
def test_what_moderation_refuses_is_a_rejected_candidate_and_is_asked_once(code):
    store = MemoryStore()
    with serving(lambda asked: complaint(400, "Your request was rejected by the safety system.", code=code)) as server:
        for _ in range(2):
            with pytest.raises(Rejected, match="rejected by the safety system") as caught:
                edit(server, store=store)
            assert caught.value.rejection.reason == "EditModerated"
    assert len(server.edits) == 1


def test_another_refusal_is_an_error_of_the_service_and_no_verdict_on_the_picture():
    with serving(lambda asked: complaint(400, "Invalid size", code="invalid_value", param="size")) as server:
        with pytest.raises(Refused, match="Invalid size"):
            edit(server)
        assert len(server.edits) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b'{"data": []}',
        b'{"data": [{}]}',
        b'{"data": [{"b64_json": "***"}]}',
        b'{"data": [{"url": 3}]}',
        b'{"data": [null]}',
    ],
)
def test_a_malformed_answer_is_asked_for_again(body):
    with serving(lambda asked: Reply(body=body) if asked.number == 0 else inverted(asked)) as server:
        assert edit(server)[0].origin.source == "edit:editor"
    assert len(server.edits) == 2


def test_a_server_in_trouble_is_given_time():
    def overloaded(asked):
        if asked.number < 3:
            return Reply(status=(429, 503, 500)[asked.number], headers={"Retry-After": "0.05"})
        return inverted(asked)

    with serving(overloaded) as server:
        edit(server)
    assert len(server.edits) == 4


@pytest.mark.parametrize(
    ("made", "reason", "why"),
    [
        (lambda asked: answer(b"<html>oops</html>"), "EditUnreadable", "NotAnImage"),
        (lambda asked: answer(encoded(Image.new("RGB", (8, 8)))), "EditUnreadable", "TooSmall"),
        (lambda asked: answer(encoded(asked.image.resize((512, 512)))), "EditUnchanged", "as it was"),
        (lambda asked: answer(encoded(asked.image)[:200]), "EditUnreadable", "Broken"),
    ],
)
def test_what_is_no_edited_picture_is_rejected_with_a_reason(made, reason, why):
    with serving(made) as server, pytest.raises(Rejected, match=why) as caught:
        edit(server)
    assert caught.value.rejection.reason == reason


def test_a_bomb_is_refused_before_it_is_unpacked():
    bomb = encoded(Image.new("1", (9000, 9000)))
    assert len(bomb) < 100_000
    with serving(lambda asked: answer(bomb)) as server, pytest.raises(Rejected, match="TooManyPixels"):
        edit(server)


def test_an_address_that_may_not_be_read_is_no_image():
    async def guarded(url: str) -> bytes:
        raise NotFetched(Reason.BLOCKED_ADDRESS, f"{url} is on this machine")

    with serving(inverted, by_address=True) as server, pytest.raises(NoImage, match="BlockedAddress"):
        edit(server, fetch=guarded)


def test_a_licence_that_allows_no_edits_is_kept_before_anything_is_paid():
    picture = Picture(ORIGINAL.image, Origin(SourceKind.POOL, "pool:s3://b/p", "1", "CC-BY-ND-4.0"))
    with serving(inverted) as server, pytest.raises(NoImage, match="no edited copies"):
        edit(server, picture=picture)
    assert server.edits == []


def test_the_key_is_sent_and_never_told(monkeypatch):
    monkeypatch.setenv(key_variable("editor"), "sk-secret-1")
    secret = {"api_key_secret_ref": SecretKeyRef(name="keys", key="editor")}
    with serving(inverted) as server:
        edit(server, endpoint=secret)
        assert server.edits[0].key == "sk-secret-1"
        server.script = lambda asked: complaint(401, "Incorrect API key provided: sk-secret-1")
        with pytest.raises(BadConfig) as caught:
            edit(server, endpoint=secret)
    assert "sk-secret" not in str(caught.value)


def test_a_budget_ends_the_asking():
    with serving(inverted) as server:
        with pytest.raises(BudgetSpent):
            edit(server, budget=Budget(0))
        assert server.edits == []


def test_an_endpoint_without_images_edits_is_a_configuration_to_mend():
    with serving(inverted) as server:
        server.script = lambda asked: complaint(404, "Unknown request URL")
        with pytest.raises(BadConfig, match="it has no images/edits there, or no model 'edit-1'"):
            edit(server)


def test_a_long_instruction_and_a_large_picture_are_cut_to_what_services_take():
    large = Picture(ORIGINAL.image.resize((3000, 1500)), ORIGINAL.origin)
    with serving(inverted) as server:
        edit(server, "very " * 1000, picture=large)
    assert len(server.edits[0].prompt) <= LONGEST_PROMPT
    assert server.edits[0].image.size == (1024, 512)


def test_a_dead_endpoint_is_an_error_of_the_service():
    with serving(inverted) as server:
        pass
    with pytest.raises(RequestFailed):
        asyncio.run(_briefly(server))


async def _briefly(server: FakeImages) -> None:
    async with ModelClient(f"{server.url}/v1", concurrency=1, endpoint="editor", outside=True, give_up_s=0.2) as client:
        with Ledger(store := MemoryStore(), LEDGER) as ledger:
            await Editor("editor", client, store, FOLDER, plain_fetch, ledger).edit(ORIGINAL, "x")
