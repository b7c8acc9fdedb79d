"""A public video that ends, asks for a password, or is not offered for download."""

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from hevcq.domain.videos import Video, Visibility
from hevcq.settings.web import DAY_S
from support.videos import VideoBench

WORD = "apple tree"


@pytest.fixture
def share(bench: VideoBench, ann: TestClient) -> Callable[..., Video]:
    def make(**terms: str) -> Video:
        video = bench.done("ann", profiles=("hevc",), title="The garden")
        form = {"days": "", "password": "", "download": "yes", **terms}
        sent = ann.post(f"/v/{video.video_id}/publish", data=form)
        assert sent.status_code == 303, sent.text
        return bench.now(video)

    return make


def addresses(video: Video) -> list[str]:
    name = video.published[0].key.rpartition("/")[2]
    base = f"/p/{video.slug}"
    return [f"{base}/poster.jpg", f"{base}/media/hevc/{name}", f"{base}/media/hevc/texts/0.vtt"]


def test_an_expired_share_is_not_found(share, as_person, clock):
    video, stranger = share(days="2"), as_person("")
    where = [f"/p/{video.slug}", *addresses(video)[:2]]
    clock.advance(1.9 * DAY_S)
    assert [stranger.get(each).status_code for each in where] == [200, 200, 200]

    clock.advance(0.2 * DAY_S)

    assert [stranger.get(each).status_code for each in where] == [404, 404, 404]
    assert "its address no longer works" in as_person("ann").get(f"/v/{video.video_id}").text


def test_a_shares_password_protects_its_page_and_files(share, as_person):
    video, stranger, other = share(password=WORD), as_person(""), as_person("")
    page = f"/p/{video.slug}"
    asked = stranger.get(page).text
    assert "Password" in asked
    assert "The garden" not in asked
    assert [stranger.get(each).status_code for each in addresses(video)] == [403, 403, 403]
    assert stranger.post(page, data={"password": "apple"}).status_code == 403

    assert stranger.post(page, data={"password": WORD}).status_code == 303

    assert "The garden" in stranger.get(page).text
    assert [stranger.get(each).status_code for each in addresses(video)[:2]] == [200, 200]
    assert other.get(addresses(video)[1]).status_code == 403
    assert WORD not in video.model_dump_json()


def test_a_shares_cookie_opens_no_other_share_and_ends_with_it(share, as_person, ann):
    first, second, stranger = share(password=WORD), share(password=WORD), as_person("")
    stranger.post(f"/p/{first.slug}", data={"password": WORD})
    assert stranger.get(addresses(first)[1]).status_code == 200
    assert stranger.get(addresses(second)[1]).status_code == 403

    ann.post(f"/v/{first.video_id}/publish", data={"days": "", "password": "another word"})

    assert stranger.get(addresses(first)[1]).status_code == 403
    ann.post(f"/v/{first.video_id}/unpublish", data={"a": "b"})
    assert stranger.post(f"/p/{first.slug}", data={"password": WORD}).status_code == 404


def test_attempts_on_a_shares_password_are_limited(share, as_person):
    video, stranger = share(password=WORD), as_person("")
    page = f"/p/{video.slug}"
    tries = [stranger.post(page, data={"password": f"wrong {n}"}).status_code for n in range(10)]
    assert set(tries) == {403}

    late = stranger.post(page, data={"password": WORD})

    assert (late.status_code, int(late.headers["Retry-After"]) > 0) == (429, True)
    assert stranger.get(addresses(video)[1]).status_code == 403


def test_without_download_a_video_is_played_but_not_offered(share, as_person):
    video, stranger = share(download=""), as_person("")
    file = addresses(video)[1]
    assert "Download</a>" not in stranger.get(f"/p/{video.slug}").text
    assert stranger.get(file).status_code == 200
    assert stranger.get(f"{file}?download=1").status_code == 404


@pytest.mark.parametrize("terms", [{"days": "0"}, {"days": "soon"}, {"password": "short"}])
def test_wrong_terms_share_nothing(bench, ann, terms):
    video = bench.done("ann", profiles=("hevc",))
    form = {"days": "", **terms}
    assert ann.post(f"/v/{video.video_id}/publish", data=form).status_code == 409
    assert bench.now(video).visibility is Visibility.PRIVATE


def test_a_program_shares_on_terms_and_sharing_again_keeps_them(bench, ann, as_person):
    video = bench.done("ann", profiles=("hevc",))
    where = f"/api/v1/videos/{video.video_id}/publish"
    sent = {"share": {"days": 3, "password": WORD}}

    made = ann.post(where, json=sent).json()
    again = ann.post(where, json={"tags": True}).json()

    assert made["share_ends_at"] == again["share_ends_at"] is not None
    assert "argon2" not in str(again)
    assert as_person("").get(addresses(bench.now(video))[1]).status_code == 403


def test_changed_terms_keep_the_address_and_empty_fields(share, ann, bench, as_person, clock):
    video, stranger = share(days="2", password=WORD), as_person("")
    where, page = f"/v/{video.video_id}/terms", f"/p/{video.slug}"

    ann.post(where, data={"days": "", "password": ""})
    changed = bench.now(video).share
    assert changed == video.share.model_copy(update={"download": False})

    assert (
        "public address is unchanged"
        in ann.post(where, data={"days": "9"}, follow_redirects=True).text
    )
    clock.advance(3 * DAY_S)
    assert stranger.post(page, data={"password": WORD}).status_code == 303
    ann.post(where, data={"open": "yes", "endless": "yes", "download": "yes"})
    clock.advance(30 * DAY_S)
    assert "Download</a>" in as_person("").get(page).text
    assert ann.post(where, data={"days": "0"}).status_code == 409

    api = f"/api/v1/videos/{video.video_id}"
    ended = ann.patch(api, json={"share": {"days": 1}}).json()
    assert ended["slug"] == video.slug
    assert ended["share_ends_at"] == clock.now() + DAY_S
    assert ann.patch(api, json={"title": "Roses"}).json()["share_ends_at"] == ended["share_ends_at"]
    ann.post(f"/v/{video.video_id}/unpublish", data={"a": "b"})
    assert ann.patch(api, json={"share": {}}).status_code == 422
    assert ann.post(where, data={"days": "1"}).status_code == 409
