"""Events: what happens to videos, told as it happens."""

import asyncio
import json
import threading
import time

from kinetograph.server import events, native
from kinetograph.server.events import Broadcast


def parsed(text):
    """The events in a stream: (kind, id, content)."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "event" in fields:
            found.append((fields["event"], int(fields["id"]), json.loads(fields["data"])))
    return found


def follow(house, id, **headers):
    return parsed(house.client.get(f"/v1/videos/{id}/events", headers=headers).text)


def test_a_video_s_events_tell_every_state_and_end_with_it(house):
    id = house.ask(model="patience", prompt="wait", steps=8, pause=0.3)["id"]
    worker = threading.Thread(target=lambda: (time.sleep(0.3), house.worker.step()))
    worker.start()
    told = follow(house, id)
    worker.join()
    videos = [content for kind, _, content in told if kind == "video"]
    assert videos[0]["status"] == "queued"
    assert videos[-1]["status"] == "completed"
    steps = [video["step"] for video in videos]
    assert steps == sorted(steps)
    assert len(set(steps)) > 3
    ids = [number for _, number, _ in told]
    assert ids == sorted(ids)
    pictures = [content for kind, _, content in told if kind == "preview"]
    assert pictures
    assert all(picture["image"].startswith("data:image/jpeg;base64,") for picture in pictures)


def test_previews_can_be_left_out(house):
    id = house.ask(model="patience", prompt="wait", steps=4, pause=0.3)["id"]
    worker = threading.Thread(target=house.worker.step)
    worker.start()
    told = parsed(house.client.get(f"/v1/videos/{id}/events?previews=false").text)
    worker.join()
    assert {kind for kind, _, _ in told} == {"video"}


def test_a_video_that_is_over_is_told_once(house):
    id = house.made()["id"]
    [(kind, number, content)] = follow(house, id)
    assert (kind, content["status"]) == ("video", "completed")
    again = follow(house, id, **{"last-event-id": str(number)})
    assert [content["status"] for _, _, content in again] == ["completed"]  # the end is never lost


def test_a_video_that_is_deleted_while_somebody_watches_ends_the_stream(house):
    id = house.ask()["id"]
    threading.Timer(0.4, lambda: house.client.delete(f"/v1/videos/{id}")).start()
    told = follow(house, id)
    assert [kind for kind, _, _ in told] == ["video", "deleted"]
    assert told[-1][2] == {"id": id}
    house.refused(house.client.get(f"/v1/videos/{id}/events"), 404)


def test_an_event_number_that_is_none_is_refused(house):
    id = house.ask()["id"]
    for wrong in ("x", "-1", "9" * 50):
        answer = house.client.get(f"/v1/videos/{id}/events", headers={"last-event-id": wrong})
        house.refused(answer, 400)


def listened(house, owner, since, work, until, seconds=10.0):
    """The events of all of an owner's videos while `work` happens, until one satisfies `until`."""

    async def listen():
        desk, loop, told = house.desk, asyncio.get_running_loop(), ""
        watcher = await loop.run_in_executor(None, desk.broadcast.watch, owner, None, loop)
        first = native._first(desk, owner, None, since)
        working = loop.run_in_executor(None, work)
        async with asyncio.timeout(seconds):
            async for chunk in events.stream(desk.broadcast, watcher, first, True):
                told += chunk.decode()
                if any(until(event) for event in parsed(told)):
                    break
        await working
        return parsed(told)

    return asyncio.run(listen())


def test_all_videos_of_one_owner_are_told_and_nobody_else_s(house):
    def work():
        house.ask(prompt="mine")
        from dataclasses import replace

        from kinetograph.jobs import Draft

        job = house.store.jobs().jobs[0]
        house.store.submit(Draft(engine="render", request=replace(job.asked, prompt="theirs"), owner="another"))
        house.worker.step()
        house.ask(prompt="last")

    told = listened(house, "local", None, work, lambda event: event[2].get("prompt") == "last")
    assert {content["prompt"] for kind, _, content in told if kind == "video"} == {"mine", "last"}


def test_whoever_comes_back_is_told_what_changed_since(house):
    first = house.ask(prompt="first")["id"]
    since = house.store.revision()
    house.ask(prompt="second")
    house.client.delete(f"/v1/videos/{first}")
    told = listened(house, "local", since, lambda: None, lambda event: event[0] == "deleted")
    assert [(kind, content.get("prompt")) for kind, _, content in told] == [("video", "second"), ("deleted", None)]


def test_two_hundred_who_watch_are_all_told_the_end(house):
    id = house.ask()["id"]

    async def watch_all():
        desk, loop = house.desk, asyncio.get_running_loop()
        job = house.store.job(id)
        first = [events.event(job, desk.outlook)]

        async def one():
            watcher = await loop.run_in_executor(None, desk.broadcast.watch, "local", id, loop)
            chunks = [chunk async for chunk in events.stream(desk.broadcast, watcher, first, True)]
            return parsed(b"".join(chunks).decode())[-1][2]["status"]

        watching = [asyncio.create_task(one()) for _ in range(200)]
        await asyncio.sleep(0.5)
        await loop.run_in_executor(None, house.worker.step)
        async with asyncio.timeout(20):
            return await asyncio.gather(*watching)

    assert asyncio.run(watch_all()) == ["completed"] * 200


def test_nobody_looks_at_the_database_when_nobody_watches(house):
    id = house.made()["id"]
    follow(house, id)
    for _ in range(100):
        if not any(thread.name == "events" for thread in threading.enumerate()):
            return
        time.sleep(0.05)
    raise AssertionError("it still looks")


def test_too_many_streams_are_refused_and_not_queued(house, monkeypatch):
    monkeypatch.setattr(events, "MOST", 0)
    id = house.ask()["id"]
    answer = house.client.get(f"/v1/videos/{id}/events")
    house.refused(answer, 429)
    assert isinstance(house.desk.broadcast, Broadcast)
