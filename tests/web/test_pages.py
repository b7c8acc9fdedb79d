"""The pages of videos: who sees what, what each state shows, and what the buttons do."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from hevcq.domain.job import JobState
from hevcq.domain.media.facts import Chapter
from hevcq.domain.profile import VideoCodec
from hevcq.domain.videos import VideoStatus, Visibility
from hevcq.errors import SourceDamaged, SourceUnreadable
from hevcq.ports.encoder import TextTrack
from hevcq.ports.videos import Page, VideoFilter
from hevcq.usecases.videos import manage
from hevcq.usecases.videos.manage import ProfileRow
from hevcq.web.pages.video import choose_playable

NOBODY = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
ACTIONS = ("retry", "cancel", "publish", "unpublish", "delete", "edit")


def test_anothers_video_is_not_there(people, bench):
    video = bench.done("ann")
    bob = people("bob")

    for path in ("", "/now", "/edit", "/hevc/certificate", "/poster.jpg"):
        assert bob.get(f"/v/{video.video_id}{path}").status_code == 404, path
        assert bob.get(f"/v/{NOBODY}{path}").status_code == 404, path
    for action in ACTIONS:
        got = bob.post(f"/v/{video.video_id}/{action}", data={"sure": "yes", "title": "mine"})
        assert got.status_code == 404, action
    assert bench.now(video) == video


def test_the_list_is_found_by_words_and_state_page_by_page(people, bench, monkeypatch):
    monkeypatch.setattr("hevcq.usecases.videos.manage.OWNER_OPEN", 100)
    for number in range(26):
        bench.request("ann", title=f"Film {number:02}", name="a.mp4")
    bench.done("ann", title="Holiday")
    ann = people("ann")

    def titles(address: str) -> list[str]:
        return re.findall(r'<h2 class="name"><a [^>]*>([^<]*)', ann.get(address).text)

    first = ann.get("/").text
    older = re.search(r'href="(/\?[^"]*before=[^"]*)"', first)
    assert older
    assert len(titles("/")) == 24
    assert titles(older[1].replace("&amp;", "&")) == ["Film 02", "Film 01", "Film 00"]
    assert titles("/?q=holiday") == ["Holiday"]
    assert titles("/?state=done") == ["Holiday"]
    assert "No video matches" in ann.get("/?q=garden").text
    by_name = "/?sort=name"
    assert titles(by_name)[:2] == ["Film 00", "Film 01"]
    more = re.search(r'href="(/\?sort=name&amp;before=[^"]*)"', ann.get(by_name).text)
    assert more
    assert titles(more[1].replace("&amp;", "&")) == ["Film 24", "Film 25", "Holiday"]
    assert titles("/?sort=size&q=holiday") == ["Holiday"]
    found = ann.get("/?sort=size&q=film&state=uploading").text
    assert 'href="/?q=film&amp;state=uploading&amp;sort=name"' in found
    assert '<input type="hidden" name="sort" value="size">' in found
    wrongs = ("/?state=gone", "/?before=../x", "/?sort=colour", "/?sort=name&before=ABC")
    for wrong in wrongs:
        assert ann.get(wrong).headers["location"] == "/"


def test_each_finished_format_is_linked_as_it_becomes_available(people, bench):
    video = bench.upload("ann", name="a.mkv")
    ann = people("ann")
    page = f"/v/{video.video_id}"
    assert ann.get(page).text.count("waiting for a worker") == 2
    assert "<video" not in ann.get(page).text

    bench.encoder.trimmed = (b"whole pictures", ("8 pictures <are> left out.",))
    bench.work("720p")

    html = ann.get(page).text
    assert "8 pictures &lt;are&gt; left out." in html
    assert html.count("waiting for a worker") == 1
    key = bench.job(video, "720p").rendition.key
    name = key.rpartition("/")[2]
    assert f'href="/media/{video.video_id}/720p/{name}"' in html
    assert f'href="/media/{video.video_id}/720p/{name}?download=1"' in html
    assert f'<source src="/media/{video.video_id}/720p/{name}"' in html
    proof = ann.get(f"{page}/720p/certificate")
    assert proof.json()["rendition_key"] == key
    assert proof.headers["content-disposition"].startswith("attachment")
    assert ann.get(f"{page}/hevc/certificate").status_code == 404
    assert ann.get(f"{page}/gone/certificate").status_code == 404


def test_a_failure_is_reported_with_what_to_do_and_retried(people, bench):
    video = bench.upload("ann")
    bench.encoder.errors["probe"] = [SourceDamaged("Two packets are missing.")]
    bench.work()
    ann = people("ann")
    page = f"/v/{video.video_id}"

    html = ann.get(page).text
    assert "Two packets are missing." in html
    assert "Upload an intact copy of the video." in html
    assert "Retry failed formats" in html
    done = ann.post(f"{page}/retry", data={"profile": ""})
    assert done.headers["location"] == f"{page}?notice=retry"
    assert bench.job(video, "hevc").state is JobState.QUEUED
    assert "Queued again." in ann.get(done.headers["location"]).text
    bench.work()
    again = ann.post(f"{page}/retry", data={"profile": ""})
    assert again.status_code == 409
    assert "No format of this video failed." in again.text


def test_a_published_video_is_watched_signed_out_until_it_is_private_again(people, bench, visit):
    video = bench.done("ann", title="The garden", description="In May.\n<i>Sunny.</i>")
    ann, stranger = people("ann"), visit(auth="users")
    ann.post(f"/v/{video.video_id}/publish", data={"tags": ""})
    public = bench.now(video)
    assert public.visibility is Visibility.PUBLIC
    assert f"/p/{public.slug}" in ann.get(f"/v/{video.video_id}").text

    html = stranger.get(f"/p/{public.slug}").text
    assert "The garden" in html
    assert "&lt;i&gt;Sunny.&lt;/i&gt;" in html
    assert f'src="/p/{public.slug}/media/' in html
    assert ">ann<" not in html
    assert "Sign out" not in html
    ann.post(f"/v/{video.video_id}/unpublish", data={"a": "b"})
    assert stranger.get(f"/p/{public.slug}").status_code == 404
    assert stranger.get("/p/no-such").status_code == 404


def test_what_files_tell_of_people_is_shared_only_with_the_box_ticked(people, bench):
    video = bench.telling(bench.done("ann", profiles=("hevc",)), ("location",))
    ann, where = people("ann"), f"/v/{video.video_id}/publish"

    assert ann.post(where, data={"original": "yes"}).status_code == 409
    assert bench.now(video).slug is None
    assert ann.post(where, data={"tags": "yes"}).status_code == 303
    assert (bench.now(video).slug is None, bench.now(video).public_original) == (False, False)


def test_a_video_is_deleted_only_with_the_box_ticked(people, bench):
    video = bench.done("ann")
    ann = people("ann")

    assert ann.post(f"/v/{video.video_id}/delete", data={"sure": ""}).status_code == 400
    assert bench.now(video) == video
    assert ann.post(f"/v/{video.video_id}/delete", data={"sure": "yes"}).status_code == 303
    assert bench.farm.videos.get(video.video_id) is None
    assert ann.get(f"/v/{video.video_id}").status_code == 404


def row(profile: str, key: str, state: JobState = JobState.DONE) -> ProfileRow:
    return ProfileRow(profile=profile, job_id="j", state=state, key=key)


def test_the_best_playable_file_comes_first_and_a_playlist_before_all(opened, bench):
    profiles, video = opened.profiles, bench.request(name="a.avi")
    hevc, small = profiles["hevc"], profiles["720p"]
    assert hevc.video.codec is VideoCodec.HEVC
    rows = [
        row("hevc", "DONE/hevc/a.mov.mp4"),
        row("720p", "DONE/720p/a b?.mp4"),
        row("x", "DONE/x/a.mkv"),
        row("y", "DONE/y/a.mp4", JobState.QUEUED),
    ]

    found = choose_playable("/media/1", video, rows, {"hevc": hevc, "720p": small})
    assert [address for address, _ in found.files] == [
        "/media/1/720p/a%20b%3F.mp4",
        "/media/1/hevc/a.mov.mp4",
    ]
    assert "avc1" in found.files[0][1]
    assert not found.playlist
    both = choose_playable("/media/1", video, [*rows, row("hls", "DONE/hls/a/master.m3u8")], {})
    assert both.playlist == "/media/1/hls/master.m3u8"
    assert not choose_playable("/media/1", video, [row("x", "DONE/x/a.mkv")], {})


def test_an_upload_that_is_playable_already_is_played_while_it_is_kept(people, bench):
    video = bench.upload("ann", name="phone.mp4")
    ann = people("ann")
    address = f"/media/{video.video_id}/original/{video.source.key.rpartition('/')[2]}"

    html = ann.get(f"/v/{video.video_id}").text

    assert f'<source src="{address}" type="video/mp4">' in html
    assert f'href="{address}?download=1"' in html
    assert ann.get(address).headers["content-type"] == "video/mp4"
    bench.farm.change(bench.now(video), raw_deleted_at=1.0)
    assert "/original/" not in ann.get(f"/v/{video.video_id}").text


def test_the_video_is_followed_while_the_page_runs(visit, bench, opened):
    video = bench.upload("local")
    bench.work()
    with visit(auth="none"):
        for _ in range(1000):
            if bench.now(video).status is VideoStatus.DONE:
                break
    assert bench.now(video).status is VideoStatus.DONE


def test_an_mp4_is_played_with_its_subtitles_and_chapters(
    people, bench, visit, opened, monkeypatch
):
    held = (
        (
            TextTrack("WEBVTT\n\n00:00.000 --> 00:01.000\nHi\n", "de"),
            TextTrack("WEBVTT\n", "", '"> <b>', ("forced", "hearing_impaired")),
        ),
        (Chapter(start_s=65.0, end_s=70.0, title="<Pond>"),),
    )
    monkeypatch.setattr(opened.encoder, "texts", lambda _location, *, stop: held)
    video = bench.done("ann")
    ann = people("ann")

    html = ann.get(f"/v/{video.video_id}").text

    first = f"/media/{video.video_id}/720p/texts/0.vtt"
    assert f'<track src="{first}" kind="subtitles" label="de" srclang="de">' in html
    assert 'kind="captions" label="&#34;&gt; &lt;b&gt; (forced)">' in html
    assert "<time>0:01:05</time> &lt;Pond&gt;" in html
    got = ann.get(first)
    assert (got.status_code, got.headers["content-type"]) == (200, "text/vtt; charset=utf-8")
    assert got.text.endswith("Hi\n")
    assert ann.get(first.replace("0.vtt", "2.vtt")).status_code == 404
    assert people("bob").get(first).status_code == 404
    ann.post(f"/v/{video.video_id}/publish", data={"tags": ""})
    slug = bench.now(video).slug
    stranger = visit(auth="users")
    assert "<track src=" in stranger.get(f"/p/{slug}").text
    assert stranger.get(f"/p/{slug}/media/720p/texts/0.vtt").text == got.text
    assert stranger.get(first).status_code == 401


def test_a_file_that_is_no_video_is_named_as_its_owner_knows_it_and_is_not_played(
    people, operator, bench
):
    bench.encoder.errors["probe"] = [
        SourceUnreadable(f"/srv/my data/videos/{name} is a text file, not a video.")
        for name in (["01MCC5RM000000000000000001.mov"] * 2)
    ]
    video = bench.upload("ann", name="Notes.mov")
    bench.work()

    html = people("ann").get(f"/v/{video.video_id}").text
    queue = operator.get("/board/jobs").text
    job = operator.get(re.findall(r'href="(/board/jobs/\w{32})"', queue)[0]).text

    assert bench.now(video).status is VideoStatus.FAILED
    for shown in (html, queue, job):
        assert "Notes.mov is a text file, not a video." in shown
        assert "/srv/" not in shown
    assert "<video" not in html
    assert html.count("Upload a file that is a video") == 1, "what to do is said once"


def test_an_open_page_gets_its_part_until_the_session_ends(operator, farm):
    assert 'hx-get="/board/now"' in operator.get("/board").text
    farm.running("film.mp4")

    part = operator.get("/board/now", headers={"HX-Request": "true"})

    assert "film.mp4" in part.text
    assert "<html" not in part.text
    operator.post("/sign-out")
    refused = operator.get("/board/now", headers={"HX-Request": "true"})
    assert refused.status_code == 401, "a sign-in page has no place in a part"
    assert 'Signed out; <a href="">sign in again</a>' in refused.text
    assert operator.get("/board/now").headers["location"].startswith("/sign-in")


def test_a_tag_leads_to_the_videos_that_have_it(ann, bench):
    kept, other = bench.upload(title="Garden"), bench.upload(title="Family film")
    form = {"title": "Garden", "tags": "Family, #2026 , family,,<b>"}

    assert ann.post(f"/v/{kept.video_id}/edit", data=form).status_code == 303

    assert bench.now(kept).tags == ("Family", "2026", "<b>")
    html = ann.get(f"/v/{kept.video_id}").text
    assert '<a class="tag" href="/?q=%23Family">Family</a>' in html
    assert "<b>" not in html
    found = ann.get("/?q=%23Family").text
    assert kept.video_id in found
    assert other.video_id not in found
    address = f"/api/v1/videos/{kept.video_id}"
    assert 'value="Family, 2026, &lt;b&gt;"' in ann.get(f"/v/{kept.video_id}/edit").text
    assert ann.get(address).json()["tags"] == ["Family", "2026", "<b>"]
    assert manage.rename(bench.farm, bench.now(kept), tags=["a,b", "A"]).tags == ("a", "b")


@pytest.mark.parametrize("search", ["/?q=x", "/api/v1/videos?text=x"])
def test_many_searches_leave_threads_for_other_pages(as_person, opened, monkeypatch, search):
    gate, begun, page = threading.Event(), threading.Semaphore(0), opened.videos.page

    def slow(wanted: VideoFilter) -> Page:
        if wanted.text:
            begun.release()
            assert gate.wait(60)
        return page(wanted)

    monkeypatch.setattr(opened.videos, "page", slow)
    with as_person("op") as client, ThreadPoolExecutor(30) as many:
        searches = [many.submit(client.get, search) for _ in range(20)]
        for _ in range(4):
            assert begun.acquire(timeout=60)
        for _ in range(5):
            assert client.get("/board").status_code == 200
        assert not begun.acquire(blocking=False)
        gate.set()
        assert {each.result().status_code for each in searches} == {200}
